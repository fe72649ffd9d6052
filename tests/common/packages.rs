//! Packages made with the tools of this machine.

use std::fs;

use super::Env;

const SPEC: &str = "Name: probe
Version: 1.0
Release: 1
Summary: Files of several owners
License: MIT
BuildArch: noarch
AutoReqProv: no

%description
Files of several owners, a setgid program, and a script that changes owners.

%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/etc/probe %{buildroot}/var/lib/probe
printf '#!/bin/sh\\necho probe 1.0\\n' > %{buildroot}/usr/bin/probe
echo 'games = yes' > %{buildroot}/etc/probe/scores.conf
echo state > %{buildroot}/var/lib/probe/state

%files
%attr(2755, root, mail) /usr/bin/probe
%dir %attr(0755, root, root) /etc/probe
%config %attr(0644, daemon, games) /etc/probe/scores.conf
%dir %attr(0755, root, root) /var/lib/probe
%attr(0640, root, root) /var/lib/probe/state

%post
chown -R www-data:www-data /var/lib/probe
chmod 2770 /var/lib/probe
";

/// The spec of an rpm with one file of root, in this version.
pub(crate) fn plain_spec(version: &str) -> String {
    format!(
        "Name: probe\nVersion: {version}\nRelease: 1\nSummary: One file\nLicense: MIT\nBuildArch: noarch\n\
         AutoReqProv: no\n%description\nOne file.\n%install\nmkdir -p %{{buildroot}}/opt/probe\n\
         echo {version} >%{{buildroot}}/opt/probe/version\n%files\n/opt/probe\n"
    )
}

/// An rpm whose files belong to several users, with a setgid program and a %post that chowns.
pub(crate) fn rpm(env: &Env) -> String {
    rpm_of(env, "probe", SPEC)
}

/// The one rpm that a spec file makes, as `NAME.rpm`.
pub(crate) fn rpm_of(env: &Env, name: &str, spec: &str) -> String {
    let spec = env.file(&format!("{name}.spec"), spec);
    let top = env.folder("rpmbuild");
    let defines =
        [format!("_topdir {top}"), format!("_rpmdir {top}"), format!("_build_name_fmt {name}.rpm")];
    let defines = defines.iter().flat_map(|define| ["--define", define]);
    drop(env.program("rpmbuild").args(["--quiet", "-bb"]).args(defines).arg(spec).run().ok());
    format!("{top}/{name}.rpm")
}

/// A deb with a configuration file and a postinst that chowns.
pub(crate) fn deb(env: &Env) -> String {
    env.file(
        "deb/DEBIAN/control",
        "Package: probe-deb\nVersion: 1\nArchitecture: all\nMaintainer: n <n@example.org>\nDescription: probe\n",
    );
    env.file("deb/DEBIAN/conffiles", "/etc/probe-deb.conf\n");
    env.file("deb/etc/probe-deb.conf", "a = 1\n");
    let script = env.file(
        "deb/DEBIAN/postinst",
        "#!/bin/sh\nset -e\nmkdir -p /var/lib/probe-deb\nchown www-data:games /var/lib/probe-deb\n",
    );
    for (path, mode) in [
        (script, 0o755),
        (env.folder("deb"), 0o755),
        (env.folder("deb/DEBIAN"), 0o755),
        (env.folder("deb/etc"), 0o755),
    ] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
            .expect("mode");
    }
    let out = env.path("probe.deb");
    let tree = env.path("deb");
    drop(env.program("dpkg-deb").args(["--root-owner-group", "-b"]).arg(tree).arg(&out).run().ok());
    out.to_str().expect("UTF-8").to_owned()
}
