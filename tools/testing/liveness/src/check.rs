// SPDX-License-Identifier: GPL-2.0

//! Explores all states of a scene, and looks for fair cycles in which a property never holds.
//!
//! A run is an infinite path; in any state it may stay for ever. It is fair if each task with a fair
//! step takes one, unless again and again it has none (weak fairness). Strong fairness adds that a
//! user is served whose wait could end again and again.

use std::collections::HashSet;

use foldhash::fast::FixedState;
use indexmap::IndexSet;
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{EdgeRef, NodeFiltered};

use crate::model::{Kind, Label, Scene, State};

/// A state of affairs that must not last for ever in a fair run.
pub struct Property {
    pub name: String,
    pub is_bad: Box<dyn Fn(&State) -> bool>,
    /// Whether strong fairness is assumed.
    pub is_strong: bool,
}

/// All states that a scene can reach, in the order of their distance from the first.
pub struct Graph {
    pub states: IndexSet<State, FixedState>,
    pub edges: DiGraph<(), u8>,
    labels: IndexSet<Label>,
    /// The step by which each state was found.
    found: Vec<(usize, u8)>,
    /// See [`bits`].
    enabled: Vec<u64>,
}

impl Graph {
    pub fn explore(scene: &Scene) -> Self {
        let (mut edges, mut labels) = (DiGraph::new(), IndexSet::new());
        let mut states = IndexSet::from_iter([scene.start()]);
        let (mut found, mut enabled) = (vec![(0, 0)], Vec::new());
        edges.add_node(());
        while let Some(state) = states.get_index(enabled.len()) {
            let (from, mut all) = (enabled.len(), 0);
            for step in scene.next(state) {
                all |= bits(step.label);
                // CAST: There are fewer labels than that.
                let label = labels.insert_full(step.label).0 as u8;
                let (to, is_new) = states.insert_full(step.s);
                if is_new {
                    edges.add_node(());
                    found.push((from, label));
                }
                edges.add_edge(NodeIndex::new(from), NodeIndex::new(to), label);
            }
            enabled.push(all);
        }
        Self { states, edges, labels, found, enabled }
    }

    /// Returns the number of states that are bad, and a fair run that stays in such states.
    pub fn check(&self, property: &Property) -> (usize, Option<String>) {
        let mut bad: Vec<bool> = self.states.iter().map(&property.is_bad).collect();
        let count = bad.iter().filter(|bad| **bad).count();
        loop {
            let part = NodeFiltered::from_fn(&self.edges, |node: NodeIndex| bad[node.index()]);
            let mut is_done = true;
            for component in kosaraju_scc(&part) {
                let out = self.unfair(&component, property.is_strong);
                if out.is_empty() {
                    return (count, Some(self.describe(&component)));
                }
                // Without them, the rest may fall apart.
                is_done &= out.len() == component.len();
                out.iter().for_each(|node| bad[node.index()] = false);
            }
            if is_done {
                return (count, None);
            }
        }
    }

    /// Returns the states of a strongly connected component that no fair run in it has for ever.
    fn unfair(&self, component: &[NodeIndex], is_strong: bool) -> Vec<NodeIndex> {
        let taken = self.inside(component).into_iter().map(bits).fold(0, |all, bits| all | bits);
        let missed = |node: &NodeIndex| self.enabled[node.index()] & !taken;
        if component.iter().fold(u64::from(u32::MAX), |all, node| all & missed(node)) != 0 {
            return component.to_vec();
        }
        let is_unserved = |node: &&NodeIndex| is_strong && missed(node) > u64::from(u32::MAX);
        component.iter().filter(is_unserved).copied().collect()
    }

    fn inside(&self, component: &[NodeIndex]) -> HashSet<Label> {
        let states: HashSet<_> = component.iter().collect();
        let edges = component.iter().flat_map(|node| self.edges.edges(*node));
        let inside = edges.filter(|edge| states.contains(&edge.target()));
        inside.map(|edge| self.labels[usize::from(*edge.weight())]).collect()
    }

    /// Describes the way into a component, and the steps in it.
    fn describe(&self, component: &[NodeIndex]) -> String {
        let mut at = component.iter().min().map_or(0, |node| node.index());
        let mut run = format!("{:?}\nfor ever {:?}\n", self.states[at], self.inside(component));
        while at != 0 {
            let (from, label) = self.found[at];
            run.insert_str(0, &format!("{:?}\n", self.labels[usize::from(label)]));
            at = from;
        }
        run
    }
}

/// Returns the bit of the task if the step is fair, and also a higher one if it ends a wait.
fn bits((task, kind, ..): Label) -> u64 {
    match kind {
        Kind::Free => 0,
        Kind::Fair => 1 << task,
        Kind::Serve => (1 << task) | (1 << (32 + task)),
    }
}
