#!/bin/bash
# hosts.sh FILE: docs/hosts.md, made of what an integration run wrote to SANDBOX_HOSTS_TABLE: one line for each thing that was
# tried, place, id mode, what and result, with tabs between.
set -euo pipefail
table=$1
cat <<'TEXT'
# Places

Where `sandbox` was tried, and what came of it: written by `make integration` (integration/hosts.sh), not by hand. How to get there is
in [nested.md](nested.md), what the id modes are in the [README](../README.md#whose-files-they-are). "(VM)" is a virtual machine with that kernel.

| place | id mode | works | else |
| --- | --- | --- | --- |
TEXT
awk -F '\t' '
# What comes before there is a box belongs to the mode that it gets.
$2 == "-" && $4 == "works" { next }
NF == 4 {
    key = $1 "\t" $2
    if (!(key in seen)) { seen[key] = 1; order[++count] = key }
    if (done[key, $3, $4]++) next
    if ($4 == "works") works[key] = works[key] (works[key] == "" ? "" : ", ") $3
    else other[key] = other[key] (other[key] == "" ? "" : "<br>") $3 ": " $4
}
END {
    for (i = 1; i <= count; i++) {
        key = order[i]
        split(key, part, "\t")
        gsub(/\|/, "\\|", other[key])
        printf "| %s | %s | %s | %s |\n", part[1], part[2], works[key], other[key]
    }
}' "$table"
cat <<'TEXT'

Not tried: AppArmor's restriction of unprivileged user namespaces (`kernel.apparmor_restrict_unprivileged_userns`, Ubuntu 23.10 and newer),
because Debian's kernels do not have it. What `doctor` and the faults say there has a test of its own.
TEXT
