// SPDX-License-Identifier: GPL-2.0

//! Replays a trace of the driver against the model.
//!
//! The events of a domain come with the reflck held, except for waits, so that each section of code
//! leaves its events in a row. A trace does not show when functions join and leave, nor attempts to
//! reset that find an obstacle. So the replay keeps every state that the domain can be in, and fails
//! at the first event that none of them allows.

use std::collections::{BTreeMap, HashSet};

use lab::trace::Event;

use crate::model::{Function, Member, Scene, State, User};

/// The functions of a domain, and their events.
type Domain<'a> = (Vec<&'a str>, Vec<(usize, String)>);

/// Replays a trace of functions, which `group` returns the IOMMU groups of. Returns the number of
/// events and resets, or an error at the first event that the model cannot make.
pub fn replay(trace: &[Event], group: impl Fn(&str) -> String) -> Result<(usize, usize), String> {
    let mut domains: BTreeMap<_, Domain<'_>> = BTreeMap::new();
    let mut resets = 0;
    for event in trace.iter().filter(|event| event.name != "vfio_pci_rs_wait") {
        let (function, scope) = (event.field("function"), event.field("scope"));
        let bus = function.rsplit_once(':').filter(|_| scope != "private").map(|it| it.0);
        let (functions, events) = domains.entry((scope, bus.unwrap_or(function))).or_default();
        let known = functions.iter().position(|other| *other == function);
        let member = known.unwrap_or(functions.len());
        functions.extend(known.is_none().then_some(function));
        let flag = |name| u8::from(event.field(name) == "1");
        let seen = match event.name.trim_start_matches("vfio_pci_rs_") {
            "claim" => (member, format!("claim {}", event.field("purpose").replace('-', ""))),
            "settle" => (member, format!("settle {:?}", ["open", "bound", "dirty"].map(flag))),
            "reset_begin" => (0, format!("reset_begin {}", flag("hot"))),
            "reset_end" => {
                let is_done = event.field("error") == "0";
                // EAGAIN, EACCES, EBUSY
                let is_passing = ["-11", "-13", "-16"].contains(&event.field("error"));
                resets += usize::from(is_done);
                (0, format!("reset_end {:?}", is_done.then_some(()).ok_or(is_passing)))
            }
            name => return Err(format!("an event {name}")),
        };
        events.push(seen);
    }
    domains.values().try_for_each(|domain| replay_domain(domain, &group))?;
    Ok((domains.values().map(|domain| domain.1.len()).sum(), resets))
}

fn replay_domain(
    (functions, events): &Domain<'_>,
    group: impl Fn(&str) -> String,
) -> Result<(), String> {
    let groups: Vec<_> = functions.iter().map(|function| group(function)).collect();
    let first = |group: &String| groups.iter().position(|other| other == group).unwrap_or(0);
    let members = groups.iter().map(|it| Function(None, first(it), User::Any)).collect();
    let root = (0..functions.len()).collect();
    let scene = Scene { functions: members, root, is_replay: true, ..Scene::default() };
    let mut at = BTreeMap::from([(0, HashSet::from([scene.start()]))]);
    while let Some((position, states)) = at.pop_first() {
        let (before, rest) = events.split_at(position);
        let states = unseen(&scene, states, rest.first());
        if rest.is_empty() && !states.iter().all(State::is_used) {
            break;
        }
        for step in states.iter().flat_map(|state| scene.next(state)) {
            if !step.events.is_empty() && rest.starts_with(&step.events) {
                at.entry(position + step.events.len()).or_default().insert(step.s);
            }
        }
        if at.is_empty() {
            let next = &rest[..rest.len().min(3)];
            let before = &before[before.len().saturating_sub(9)..];
            return Err(format!("no {next:?} of {functions:?} after {before:?} in {states:?}"));
        }
    }
    Ok(())
}

/// Adds the states to which steps lead that a trace does not show.
fn unseen(scene: &Scene, from: HashSet<State>, next: Option<&(usize, String)>) -> HashSet<State> {
    let (mut found, mut new) = (from.clone(), Vec::from_iter(from));
    while let Some(mut state) = new.pop() {
        let steps = scene.next(&state).into_iter().filter(|step| step.events.is_empty());
        let mut after: Vec<_> = steps.map(|step| step.s).collect();
        // Before its next event, the function may have left and joined.
        let member = next.and_then(|next| state.members.get_mut(next.0));
        if let Some(it) = member.filter(|it| it.is_idle()) {
            *it = Member::default();
            after.push(state);
        }
        new.extend(after.into_iter().filter(|state| found.insert(state.clone())));
    }
    found
}

#[test]
fn traces() {
    // Functions 0 and 1 share an IOMMU group.
    let replays = |text: &str| {
        let line = |line: &str| {
            let (function, event) = line.split_once(' ').expect("a function");
            let function = format!(": function=0000:01:00.{function} scope=bus ");
            format!(" a-1 [0] . 1.0: vfio_pci_rs_{}\n", event.replacen(' ', &function, 1))
        };
        let trace = lab::trace::parse(&text.lines().map(line).collect::<String>());
        replay(&trace.expect("a trace"), |it| it.replace('1', "0")).is_ok()
    };
    let open = "0 claim purpose=open\n0 settle open=1\n";
    let other = open.replace('0', "2");
    let close = "0 claim purpose=close\n0 settle dirty=1\n";
    let closing = format!("{open}0 claim purpose=close\n0 claim purpose=clean\n");
    let [done, again, fails] =
        ["0", "-11", "-5"].map(|it| format!("0 reset_begin hot=0\n0 reset_end error={it}\n"));
    let hot = format!("0 claim purpose=hot-reset\n{}", done.replace("hot=0", "hot=1"));
    for (text, may) in [
        (format!("{open}{close}{done}"), true),
        (format!("{open}{close}{again}{done}"), true),
        (format!("{open}{close}{again}{open}{hot}{close}{fails}"), true),
        (format!("{closing}0 settle dirty=0\n"), true),
        // An obstacle.
        (format!("{open}{close}{open}{close}"), true),
        (format!("{open}{open}"), false),
        (format!("{open}{other}{close}{done}"), false),
        (open.into(), false),
        (format!("{open}2 claim purpose=open\n{hot}"), false),
        (format!("{closing}0 claim purpose=open\n"), false),
        ("1 claim purpose=bind\n0 claim purpose=open\n".into(), false),
        (format!("{open}{close}{done}0 claim purpose=open\n0 settle open=1 dirty=1\n"), false),
    ] {
        assert_eq!(replays(&text), may, "{text}");
    }
}
