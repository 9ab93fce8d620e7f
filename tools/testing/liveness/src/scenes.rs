// SPDX-License-Identifier: GPL-2.0

//! The scenes, and the properties that all of them must have.

use std::time::Instant;

use crate::check::{Graph, Property};
use crate::model::User::{By, ByGroup, HotResets, None};
use crate::model::{Function, Purpose, Scene, State};

const FLR: Option<bool> = Some(true);
const BARE: Option<bool> = Some(false);

/// Returns the scenes. Each has four members with their work, the retry, and users.
pub fn all() -> Vec<Scene> {
    let users = [(FLR, 0, ByGroup), (FLR, 1, By(1)), (BARE, 2, ByGroup), (BARE, 3, ByGroup)];
    let bare = [(BARE, 0, ByGroup), (BARE, 1, By(1)), (BARE, 2, By(2)), (BARE, 3, None)];
    let cleaned = [(FLR, 0, By(1)), (FLR, 0, By(1)), (BARE, 2, ByGroup), (FLR, 3, None)];
    let hot = [(BARE, 0, HotResets(1)), (FLR, 1, By(1)), (BARE, 2, HotResets(1)), (BARE, 2, None)];
    let other =
        [(BARE, 0, HotResets(1)), (FLR, 1, HotResets(1)), (BARE, 2, By(2)), (BARE, 0, None)];
    let group = [(BARE, 0, By(1)), (BARE, 0, By(1)), (BARE, 0, By(1)), (BARE, 3, None)];
    let mixed = [(FLR, 0, By(1)), (FLR, 0, By(1)), (BARE, 0, By(1)), (BARE, 3, None)];
    let scene = |name, functions: [(Option<bool>, usize, _); 4]| {
        let functions = functions.map(|(alone, group, user)| Function(alone, group, user)).into();
        Scene { name, functions, ..Scene::default() }
    };
    vec![
        scene("four_users", users),
        Scene { serialized: true, ..scene("serialized", users) },
        Scene { signals: true, root: vec![3], ..scene("resets_fail", bare) },
        Scene { root: vec![3], ..scene("cleaning_fails", cleaned) },
        Scene { signals: true, ..scene("hot_resets", hot) },
        scene("hot_resets_beside_others", other),
        Scene { signals: true, ..scene("iommu_group", group) },
        scene("mixed_iommu_group", mixed),
    ]
}

fn properties(scene: &Scene) -> Vec<Property> {
    let mut found = Vec::new();
    let mut add = |name: String, is_strong, is_bad: Box<dyn Fn(&State) -> bool>| {
        found.push(Property { name, is_bad, is_strong });
    };
    for n in 0..scene.functions.len() {
        let cleans = move |s: &State| s.members[n].is_cleaning();
        add(format!("the cleaning of member {n} ends"), false, Box::new(cleans));
    }
    for n in 0..scene.functions.len() {
        let wait = move |s: &State| s.members[n].wait;
        add(format!("user {n} is served"), true, Box::new(move |s| wait(s).is_some()));
        let starves = move |s: &State| wait(s).is_some_and(|it| it.0 == Purpose::HotReset);
        add(format!("no hot reset of user {n} starves"), false, Box::new(starves));
    }
    let is_owed = |s: &State| !s.is_used() && s.is_due() && !s.is_given_up;
    add("an unused domain is reset, or given up".into(), true, Box::new(is_owed));
    found
}

/// Checks a scene. Fails with a run that violates a property.
pub fn check(scene: &Scene) -> Result<String, String> {
    let start = Instant::now();
    let graph = Graph::explore(scene);
    let mut count = 0;
    for property in properties(scene) {
        let (bad, run) = graph.check(&property);
        if let Some(run) = run {
            return Err(format!("{}: violated\n{run}", property.name));
        }
        // One that no state could violate says nothing.
        count += usize::from(bad > 0);
    }
    let (states, steps) = (graph.states.len(), graph.edges.edge_count());
    let time = start.elapsed().as_secs_f64();
    Ok(format!("{states} states, {steps} steps, {count} properties, {time:.1} s"))
}

#[test]
fn mutants_are_noticed() {
    use crate::model::Mutant::*;

    for (scene, mutant, property) in [
        ("resets_fail", NoRetry, "an unused domain is reset"),
        ("resets_fail", RetryLostToClaim, "an unused domain is reset"),
        ("hot_resets", NoWakeUpAfterHotReset, "is served"),
        ("hot_resets", OvertakesHotReset, "is served"),
        ("hot_resets_beside_others", CleaningForEver, "the cleaning of member 1 ends"),
        ("iommu_group", NoWakeUpAfterSettling, "is served"),
        ("iommu_group", NoTurns, "is served"),
    ] {
        let scene = all().into_iter().find(|it| it.name == scene).expect("a scene");
        let run = check(&Scene { mutant: Some(mutant), ..scene }).expect_err("a violation");
        assert!(run.contains(property), "{mutant:?}: {run}");
    }
}
