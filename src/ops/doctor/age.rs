//! Whether the kernel is newer than the fixes of the faults by which others have left their sandboxes. Its number tells, where
//! that follows the stable series; where a distribution mends without changing it, the day on which it was built: what was built
//! before a fix was written cannot have it. A warning either way.

use std::fs;

use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use rustix::system::uname;

use super::Probe;

/// `6.1.69`: major, minor and patch.
type Version = (u32, u32, u32);

/// A fault of the kernel, and where its fix came.
#[derive(Debug)]
struct Known {
    name: &'static str,
    /// What it gives away, here.
    what: &'static str,
    /// The first release with the fault.
    since: Version,
    /// The first release of each stable series with the fix. A series without one ended without it.
    stable: &'static [Version],
    /// From here on everything has the fix.
    mainline: Version,
    /// In the kernels of Ubuntu only, by the number after the release: `6.2.0-26`.
    ubuntu: &'static [(Version, u32)],
    /// Before this day nobody had the fix.
    written: Date,
}

/// Of overlays, user namespaces and the page cache (which runs share), or in reach from a user namespace. What was mended
/// before [`crate::remedy::OLDEST`] is not here. The numbers are those of NVD and of the kernel's own records of CVEs.
const KNOWN: [Known; 8] = [
    Known {
        name: "CVE-2022-0185",
        what: "fsconfig overflows in a user namespace",
        since: (5, 1, 0),
        stable: &[(5, 15, 16), (5, 16, 2)],
        mainline: (5, 17, 0),
        ubuntu: &[],
        written: date(2022, 1, 1),
    },
    Known {
        name: "CVE-2022-0492",
        what: "release_agent of cgroup v1 from a user namespace",
        since: (2, 6, 24),
        stable: &[(5, 15, 20), (5, 16, 6)],
        mainline: (5, 17, 0),
        ubuntu: &[],
        written: date(2022, 1, 1),
    },
    Known {
        name: "CVE-2022-0847",
        what: "Dirty Pipe: files that can only be read are written to",
        since: (5, 8, 0),
        stable: &[(5, 15, 25), (5, 16, 11)],
        mainline: (5, 17, 0),
        ubuntu: &[],
        written: date(2022, 2, 20),
    },
    Known {
        name: "CVE-2023-0386",
        what: "overlayfs copies a set-user-ID file up",
        since: (5, 11, 0),
        stable: &[(5, 15, 91), (6, 1, 9)],
        mainline: (6, 2, 0),
        ubuntu: &[],
        written: date(2023, 1, 1),
    },
    Known {
        name: "CVE-2023-2640",
        what: "overlayfs of Ubuntu keeps capabilities of files",
        since: (0, 0, 0),
        stable: &[],
        mainline: (0, 0, 0),
        // Above 1000 are other flavours.
        ubuntu: &[((6, 2, 0), 26), ((6, 0, 0), 1020)],
        written: date(2023, 6, 1),
    },
    Known {
        name: "CVE-2024-1086",
        what: "nf_tables in a user namespace",
        since: (3, 15, 0),
        stable: &[(5, 15, 149), (6, 1, 76), (6, 6, 15), (6, 7, 3)],
        mainline: (6, 8, 0),
        ubuntu: &[],
        written: date(2024, 1, 1),
    },
    Known {
        name: "CVE-2026-31431",
        what: "Copy Fail: files that can only be read are written to, by AF_ALG",
        since: (4, 14, 0),
        stable: &[(5, 15, 204), (6, 1, 170), (6, 6, 137), (6, 12, 85), (6, 18, 22), (6, 19, 12)],
        mainline: (7, 0, 0),
        ubuntu: &[],
        written: date(2026, 4, 1),
    },
    Known {
        name: "CVE-2026-43284",
        what: "Dirty Frag: files that can only be read are written to, by IPsec",
        since: (4, 11, 0),
        stable: &[(5, 15, 206), (6, 1, 172), (6, 6, 138), (6, 12, 87), (6, 18, 28), (7, 0, 5)],
        mainline: (7, 1, 0),
        ubuntu: &[],
        written: date(2026, 4, 15),
    },
];

/// Linux 5.12, the oldest that runs start on; whoever says that he was built before hides when (reproducible builds).
const OLDEST: Date = date(2021, 4, 25);
/// After so many days a kernel that nobody has built anew lacks more than the faults of the list.
const YEAR: i32 = 365;

impl Known {
    /// Where the number does not tell, the day counts, if that is known.
    fn is_in(&self, kernel: &Kernel, built: Option<Date>) -> bool {
        if !kernel.follows_stable && built.is_some_and(|built| built >= self.written) {
            return false;
        }
        let number = kernel.number;
        let mended = self.stable.iter().any(|fix| series(*fix) == series(number) && number >= *fix);
        let upstream = number >= self.since && number < self.mainline && !mended;
        let of_ubuntu = kernel.ubuntu.is_some_and(|(base, build)| {
            let same_flavours = |fix: u32| (fix < 1000) == (build < 1000);
            self.ubuntu.iter().any(|(of, fix)| *of == base && same_flavours(*fix) && build < *fix)
        });
        upstream || of_ubuntu
    }
}

fn series((major, minor, _): Version) -> (u32, u32) {
    (major, minor)
}

/// The kernel, by what it says of itself.
#[derive(Debug, PartialEq, Eq)]
struct Kernel {
    /// The release of kernel.org that it comes from.
    number: Version,
    /// Whether fixes raise that number: its distributor follows the stable series.
    follows_stable: bool,
    /// The release of Ubuntu and its build: `6.2.0-26`.
    ubuntu: Option<(Version, u32)>,
}

impl Kernel {
    /// `version` is what uname(2) calls so, `signature` what Ubuntu has in /proc.
    fn read(release: &str, version: &str, signature: Option<&str>) -> Option<Self> {
        let (number, rest) = parse(release)?;
        if let Some(signature) = signature.and_then(|text| text.strip_prefix("Ubuntu ")) {
            let mut words = signature.split_whitespace();
            let (base, build) = parse(words.next()?)?;
            let build = build.strip_prefix('-').and_then(leading).map(|(build, _)| (base, build));
            let (number, _) = words.next().and_then(parse).unwrap_or((base, ""));
            return Some(Self { number, follows_stable: false, ubuntu: build });
        }
        if version.contains("Ubuntu") {
            let build = rest.strip_prefix('-').and_then(leading).map(|(build, _)| (number, build));
            return Some(Self { number, follows_stable: false, ubuntu: build });
        }
        // Debian's release stays the same for years, its version tells the truth: `Debian 6.1.69-1`.
        let debian = version.split("Debian ").nth(1).and_then(parse).map(|(number, _)| number);
        if let Some(number) = debian.filter(|debian| series(*debian) == series(number)) {
            return Some(Self { number, follows_stable: true, ubuntu: None });
        }
        let frozen = number.2 == 0 && !rest.is_empty() && !rest.starts_with("-rc");
        let of_others = [".el", "-pve"].iter().any(|mark| rest.contains(mark));
        Some(Self { number, follows_stable: !frozen && !of_others, ubuntu: None })
    }
}

/// `6.1.0-17-amd64`: the number at the beginning, and what follows.
fn parse(text: &str) -> Option<(Version, &str)> {
    let (major, rest) = leading(text)?;
    let (minor, rest) = leading(rest.strip_prefix('.')?)?;
    let (patch, rest) = rest.strip_prefix('.').and_then(leading).unwrap_or((0, rest));
    Some(((major, minor, patch), rest))
}

fn leading(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// The fixes that the kernel in use is older than.
pub(super) fn fixes() -> Probe {
    let uname = uname();
    let signature = fs::read_to_string("/proc/version_signature").ok();
    let (release, version) = (uname.release().to_string_lossy(), uname.version().to_string_lossy());
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    judged(&release, &version, signature.as_deref(), today)
}

fn judged(release: &str, version: &str, signature: Option<&str>, today: Date) -> Probe {
    let probe = |ok, detail, remedy| Probe {
        name: "kernel-fixes",
        ok,
        needed: false,
        detail,
        errno: None,
        remedy,
    };
    let update = || Some("update the kernel and restart".to_owned());
    let Some(kernel) = Kernel::read(release, version, signature) else {
        return probe(false, format!("not compared: {release} is no number"), None);
    };
    let (major, minor, patch) = kernel.number;
    let number = format!("{major}.{minor}.{patch}");
    if series(kernel.number) < super::calls::OLDEST {
        return probe(false, format!("not compared: {number} is too old for a run"), update());
    }
    let built = built(version).filter(|built| *built >= OLDEST && *built <= today);
    let missing: Vec<_> = KNOWN.iter().filter(|known| known.is_in(&kernel, built)).collect();
    let old = built.filter(|built| (today - *built).get_days() > YEAR);
    if let Some(built) = old.filter(|_| missing.is_empty()) {
        let detail = format!("built on {built}: what was mended since then is open");
        return probe(false, detail, update());
    }
    if missing.is_empty() {
        let count = KNOWN.len();
        let detail = format!("{number} has the fixes of {count} known ways out through the kernel");
        return probe(true, detail, None);
    }
    let all: Vec<_> =
        missing.iter().map(|known| format!("{} ({})", known.name, known.what)).collect();
    let mut detail = format!("{number} is older than the fix of {}", all.join(", "));
    if !kernel.follows_stable && built.is_none() {
        detail.push_str("; that is its number, your distribution may have mended them");
    }
    probe(false, detail, update())
}

/// The day in uname's version: `2025-05-22` of Debian, or as date(1) and RFC 5322 write it: `Wed Nov 12 09:00:00 UTC 2025`,
/// `Thu, 20 Nov 2025 18:25:21 +0000`.
fn built(version: &str) -> Option<Date> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let plain = |c: char| !c.is_ascii_alphanumeric() && !"-:+".contains(c);
    let words: Vec<_> = version.split(plain).filter(|word| !word.is_empty()).collect();
    if let Some(day) = words.iter().find_map(|word| word.parse().ok()) {
        return Some(day);
    }
    let at = words.iter().rposition(|word| MONTHS.contains(word))?;
    let month = MONTHS.iter().position(|month| *month == words[at])? as i8 + 1;
    let number = |word: &&&str| word.bytes().all(|byte| byte.is_ascii_digit());
    let year = words[at..].iter().filter(number).find(|word| word.len() == 4)?.parse().ok()?;
    let beside = [words.get(at + 1), at.checked_sub(1).and_then(|before| words.get(before))];
    let day = beside.into_iter().flatten().find(|word| number(word) && word.len() <= 2)?;
    Date::new(year, month, day.parse().ok()?).ok()
}

#[cfg(test)]
#[path = "age_tests.rs"]
mod tests;
