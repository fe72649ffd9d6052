//! How old the kernel is: a sandbox is no tighter than the kernel that it shares. Distributions bring fixes into older versions
//! without a change of the number, so the version tells little; what was built before a fix was written cannot have it.

use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use rustix::system::uname;

use super::Probe;

/// A fault of the kernel that has led out of sandboxes.
struct Fault {
    cve: &'static str,
    /// What it was in.
    what: &'static str,
    /// The version that brought it.
    since: (u32, u32),
    /// Before this day nobody had the fix.
    fixed: Date,
    /// A word of uname's version, where one distribution alone had it.
    only: &'static str,
}

/// The latest last.
const FAULTS: [Fault; 5] = [
    Fault {
        cve: "CVE-2022-0185",
        what: "mount options, in reach with --nest",
        since: (5, 1),
        fixed: date(2022, 1, 1),
        only: "",
    },
    Fault {
        cve: "CVE-2022-0847",
        what: "pipes: what is read-only can be written, also layers of other runs",
        since: (5, 8),
        fixed: date(2022, 2, 20),
        only: "",
    },
    Fault {
        cve: "CVE-2023-0386",
        what: "overlayfs: set-user-ID files of FUSE, in reach with --nest",
        since: (5, 11),
        fixed: date(2023, 1, 1),
        only: "",
    },
    Fault {
        cve: "CVE-2023-2640",
        what: "overlayfs: capabilities of files hold outside",
        since: (5, 4),
        fixed: date(2023, 6, 1),
        only: "Ubuntu",
    },
    Fault {
        cve: "CVE-2026-31431",
        what: "AF_ALG sockets, which no profile allows: what is read-only can be written",
        since: (4, 14),
        fixed: date(2026, 4, 1),
        only: "",
    },
];

/// Linux 5.12, the oldest that runs start on; whoever says that he was built before hides when (reproducible builds).
const OLDEST: Date = date(2021, 4, 25);
/// After so many days a kernel that nobody has built anew lacks more than the faults of the list.
const YEAR: i32 = 365;

pub(super) fn fixes() -> Probe {
    let known = uname();
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    judged(&known.release().to_string_lossy(), &known.version().to_string_lossy(), today)
}

fn judged(release: &str, version: &str, today: Date) -> Probe {
    let built = built(version).filter(|built| *built >= OLDEST && *built <= today);
    let Some(built) = built else {
        return probe(true, "when it was built is not told".to_owned());
    };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|word| word.parse().ok());
    let number = (numbers.next().flatten().unwrap_or(0), numbers.next().flatten().unwrap_or(0));
    let has = |fault: &&Fault| {
        number >= fault.since && built < fault.fixed && version.contains(fault.only)
    };
    let faults: Vec<_> =
        FAULTS.iter().filter(has).map(|fault| format!("{} ({})", fault.cve, fault.what)).collect();
    let days = (today - built).get_days();
    match (faults.is_empty(), days > YEAR) {
        (true, false) => probe(true, format!("built on {built}")),
        (true, true) => {
            probe(false, format!("built on {built}: what was mended since then is open"))
        }
        (false, _) => {
            probe(false, format!("built on {built}, before the fix of {}", faults.join(", ")))
        }
    }
}

fn probe(ok: bool, detail: String) -> Probe {
    let remedy = (!ok).then(|| "install your distribution's newest kernel and restart".to_owned());
    Probe { name: "kernel-fixes", ok, needed: false, detail, errno: None, remedy }
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
mod tests {
    use super::*;

    const TODAY: Date = date(2026, 6, 1);

    #[test]
    fn days_are_found_where_distributions_write_them() {
        for (version, day) in [
            ("#1 SMP PREEMPT_DYNAMIC Debian 6.1.140-1 (2025-05-22)", Some(date(2025, 5, 22))),
            (
                "#26-Ubuntu SMP PREEMPT_DYNAMIC Fri Jul 10 15:19:02 UTC 2026",
                Some(date(2026, 7, 10)),
            ),
            ("#1 SMP PREEMPT_DYNAMIC Wed Nov  5 18:31:51 EST 2025", Some(date(2025, 11, 5))),
            ("#1 SMP PREEMPT_DYNAMIC Thu, 20 Nov 2025 18:25:21 +0000", Some(date(2025, 11, 20))),
            ("#1-NixOS SMP Tue Jan  1 00:00:00 UTC 1980", Some(date(1980, 1, 1))),
            ("#1 SMP PREEMPT_DYNAMIC @0", None),
            ("#1 SMP May", None),
            ("May 2025 99", None),
            ("Feb 30 12:00:00 2024", None),
            ("", None),
        ] {
            assert_eq!(built(version), day, "{version}");
        }
    }

    #[test]
    fn what_was_built_before_a_fix_lacks_it() {
        let told = |release: &str, version: &str| {
            let probe = judged(release, version, TODAY);
            assert_eq!(probe.ok, probe.remedy.is_none());
            (probe.ok, probe.detail)
        };
        let (ok, detail) = told("5.13.0", "#1 SMP Debian 5.13.1-1 (2021-09-01)");
        assert!(!ok && detail.matches("CVE-").count() == 4, "{detail}");
        assert!(!detail.contains("2023-2640"), "{detail}");
        let (ok, detail) = told("6.2.0-20-generic", "#20-Ubuntu SMP Thu Apr  6 07:48:48 UTC 2023");
        assert!(!ok && detail.contains("2023-2640") && !detail.contains("0847"), "{detail}");
        let (ok, detail) = told("6.12.1", "#1 SMP Wed Mar  4 00:00:00 UTC 2026");
        assert!(!ok && detail.contains("CVE-2026-31431"), "{detail}");
        assert_eq!(
            told("6.12.9", "#1 SMP Wed May  6 00:00:00 UTC 2026"),
            (true, "built on 2026-05-06".into())
        );
        // Says nothing true of when.
        for version in
            ["#1 SMP Tue Jan  1 00:00:00 UTC 1980", "@0", "#1 SMP Wed May  6 00:00:00 UTC 2099"]
        {
            assert!(told("6.12.9", version).0, "{version}");
        }
        let late = judged("6.18.1", "#1 SMP Wed May  6 00:00:00 UTC 2026", date(2027, 6, 1));
        assert!(!late.ok && late.detail.contains("mended since"), "{late:?}");
    }
}
