#!/bin/bash
# rpm.sh OUT: the package that job.sh installs: files of several owners, and a script that changes them.
set -euo pipefail
out=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/demo.spec" <<'SPEC'
Name: demo
Version: 1.0
Release: 1
Summary: Files of several owners
License: MIT
BuildArch: noarch
AutoReqProv: no
%description
Files of several owners, and a script that changes them.
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/var/lib/demo
printf '#!/bin/sh\necho demo 1.0\n' > %{buildroot}/usr/bin/demo
echo state > %{buildroot}/var/lib/demo/state
%files
%attr(2755, root, mail) /usr/bin/demo
%dir %attr(0755, root, root) /var/lib/demo
%attr(0640, www-data, www-data) /var/lib/demo/state
%post
chgrp games /var/lib/demo && chgrp root /var/lib/demo
SPEC
rpmbuild --quiet -bb --define "_topdir $work" --define "_rpmdir $work" --define "_build_name_fmt demo.rpm" "$work/demo.spec"
install -m 0644 "$work/demo.rpm" "$out"
