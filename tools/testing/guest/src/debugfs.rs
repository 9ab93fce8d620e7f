// SPDX-License-Identifier: GPL-2.0

//! The driver's debugfs view of its reset domains: `vfio_pci_rs/reset_domains`.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::error::Doing;
use crate::sysfs::Bdf;
use crate::Error;
use crate::Result;

const DEBUGFS: &str = "/sys/kernel/debug";

/// One reset domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// `slot`, `bus` or `private`.
    pub kind: String,
    /// The slot's, the bus's or the function's name.
    pub name: String,
    /// How many bus or slot resets the driver has done on it.
    pub resets: u64,
    /// How many attempts have failed, if another one follows.
    pub failed: u64,
    /// Its functions.
    pub members: Vec<Member>,
}

/// One function of a reset domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The function.
    pub function: Bdf,
    /// `idle`, `opening`, `open` or `closing`.
    pub state: String,
    /// Whether it still needs a reset.
    pub dirty: bool,
}

/// Where the driver's directory is, whether it exists or not.
pub fn directory(module: &str) -> PathBuf {
    Path::new(DEBUGFS).join(module)
}

/// Mounts debugfs if nobody has.
pub fn mount() -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").doing("reading /proc/mounts")?;
    if mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(DEBUGFS))
    {
        return Ok(());
    }
    nix::mount::mount(
        Some("debugfs"),
        DEBUGFS,
        Some("debugfs"),
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )
    .map_err(|e| Error::io(format!("mounting debugfs on {DEBUGFS}"), e.into()))
}

/// The file's text.
pub fn text(module: &str) -> Result<String> {
    let path = directory(module).join("reset_domains");
    fs::read_to_string(&path).doing(format!("reading {}", path.display()))
}

/// All reset domains of the driver.
pub fn domains(module: &str) -> Result<Vec<Domain>> {
    parse(&text(module)?)
}

/// The domain that `function` is a member of; more than one is an error.
pub fn domain_of(module: &str, function: &Bdf) -> Result<Option<Domain>> {
    let mut found: Vec<Domain> = domains(module)?
        .into_iter()
        .filter(|domain| domain.member(function).is_some())
        .collect();
    if found.len() > 1 {
        return Err(Error::new(format!(
            "{function} is in {} reset domains",
            found.len()
        )));
    }
    Ok(found.pop())
}

impl Domain {
    /// The entry of one function.
    pub fn member(&self, function: &Bdf) -> Option<&Member> {
        self.members.iter().find(|m| m.function == *function)
    }

    /// Members that need a reset.
    pub fn dirty(&self) -> usize {
        self.members.iter().filter(|m| m.dirty).count()
    }
}

/// Parses the file: a line for each domain, followed by a line for each member, indented by two
/// spaces.
fn parse(text: &str) -> Result<Vec<Domain>> {
    let mut domains: Vec<Domain> = Vec::new();
    for line in text.lines() {
        let odd = || {
            Error::new(format!(
                "reset_domains has a line of unknown form: '{line}'"
            ))
        };
        if let Some(member) = line.strip_prefix("  ") {
            let [function, state, dirt] = member.split(' ').collect::<Vec<_>>()[..] else {
                return Err(odd());
            };
            if !["idle", "opening", "open", "closing"].contains(&state) {
                return Err(odd());
            }
            let dirty = match dirt {
                "dirty" => true,
                "clean" => false,
                _ => return Err(odd()),
            };
            let member = Member {
                function: Bdf::parse(function)?,
                state: state.to_owned(),
                dirty,
            };
            domains.last_mut().ok_or_else(odd)?.members.push(member);
        } else {
            let words = line.split(' ').collect::<Vec<_>>();
            let (kind, name, resets, failed) = match words[..] {
                [kind, name, "resets", resets] => (kind, name, resets, "0"),
                [kind, name, "resets", resets, "failed", failed] => (kind, name, resets, failed),
                _ => return Err(odd()),
            };
            if !["slot", "bus", "private"].contains(&kind) {
                return Err(odd());
            }
            domains.push(Domain {
                kind: kind.to_owned(),
                name: name.to_owned(),
                resets: resets.parse().map_err(|_| odd())?,
                failed: failed.parse().map_err(|_| odd())?,
                members: Vec::new(),
            });
        }
    }
    match domains.iter().find(|d| d.members.is_empty()) {
        Some(empty) => Err(Error::new(format!(
            "{} {} has no member",
            empty.kind, empty.name
        ))),
        None => Ok(domains),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
slot 0000:02:00 resets 1
  0000:02:00.0 idle dirty
  0000:02:00.1 open clean
bus 0000:03 resets 0 failed 2
  0000:03:00.0 idle dirty
private 0000:00:04.0 resets 0
  0000:00:04.0 closing clean
";

    #[test]
    fn domains_and_members() {
        let domains = parse(TEXT).expect("a valid file");
        assert_eq!(domains.len(), 3);
        assert_eq!((domains[0].failed, domains[1].failed), (0, 2));
        assert_eq!((domains[0].kind.as_str(), domains[0].resets), ("slot", 1));
        assert_eq!(domains[0].dirty(), 1);
        let function = Bdf::parse("0000:02:00.1").expect("a valid address");
        let member = domains[0].member(&function).expect("a member");
        assert_eq!((member.state.as_str(), member.dirty), ("open", false));
    }

    #[test]
    fn odd_files() {
        assert!(parse("").expect("no domain is valid").is_empty());
        assert!(parse("  0000:02:00.0 idle dirty\n").is_err());
        assert!(parse("bus 0000:02 resets 0\n").is_err());
        assert!(parse("bus 0000:02 resets 0\n  0000:02:00.0 lost dirty\n").is_err());
        assert!(parse("plane 0000:02 resets 0\n  0000:02:00.0 idle dirty\n").is_err());
    }
}
