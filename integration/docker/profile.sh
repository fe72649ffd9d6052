#!/bin/sh
# profile.sh [DEFAULT]: makes profiles/docker-nested.json: Docker's default seccomp profile and one more rule.
#
# DEFAULT is seccomp/default.json of github.com/moby/profiles (Apache-2.0; before: profiles/seccomp/default.json of
# github.com/moby/moby); without it the one that tests/fixtures/docker-default.json is a copy of. A new one is put
# there. The text stays as it is, so that a diff of the two files says all.
set -eu
cd "$(dirname -- "$0")/../.."
fixture=tests/fixtures/docker-default.json
[ $# -eq 0 ] || cp "$1" "$fixture"

awk '
    { print }
    /^\t"syscalls": \[$/ {
        found = 1
        print "\t\t{"
        print "\t\t\t\"comment\": \"for sandbox: namespaces and mounts, which the kernel grants inside a user namespace only\","
        print "\t\t\t\"names\": ["
        count = split("clone fsconfig fsmount fsopen mount mount_setattr move_mount open_tree pivot_root sethostname setns umount2 unshare", names, " ")
        for (i = 1; i <= count; i++) print "\t\t\t\t\"" names[i] "\"" (i < count ? "," : "")
        print "\t\t\t],"
        print "\t\t\t\"action\": \"SCMP_ACT_ALLOW\""
        print "\t\t},"
    }
    END { exit !found }
' "$fixture" >profiles/docker-nested.json.new
mv profiles/docker-nested.json.new profiles/docker-nested.json
