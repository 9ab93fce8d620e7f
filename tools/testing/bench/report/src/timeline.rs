// SPDX-License-Identifier: GPL-2.0

//! Pictures of what happened when: a panel for each driver, in it a row for each function, with a
//! bar for everything that the function was busy with. The panels have one scale of time, so that
//! what is longer took longer.

use std::collections::BTreeSet;

use plotters::coord::ranged1d::Ranged;
use plotters::element::PathElement;
use plotters::element::Rectangle;
use plotters::style::Color;
use plotters::style::RGBColor;

use crate::axis::Axis;
use crate::drawing;
use crate::drawing::Canvas;
use crate::drawing::Picture;
use crate::drawing::LINE;
use crate::drawing::WIDTH;
use crate::figures;
use crate::model::Benchmark;
use crate::model::Driver;
use crate::model::Kind;
use crate::model::Timeline;
use crate::Result;

const MARGIN: i32 = 12;
const TITLE: i32 = 30;
const LEGEND_ENTRY: i32 = 140;
/// Of the rows, where the addresses of the functions are on their left.
const LEFT: i32 = MARGIN + 100;
/// Room on the right for half of the last label.
const RIGHT: i32 = WIDTH as i32 - MARGIN - 16;
const CAPTION: i32 = 30;
const AXIS_AREA: i32 = 26;

/// All rows of a panel have about this height, and each of them one within the limits.
const ROWS: usize = 220;
const LOWEST_ROW: usize = 6;
const HIGHEST_ROW: usize = 18;

/// A driver's part of a picture.
struct Panel<'a> {
    driver: &'a Driver,
    timeline: &'a Timeline,
}

/// Draws all timelines, a picture for those of one name.
pub fn pictures(benchmark: &Benchmark) -> Result<Vec<Picture>> {
    let mut names: Vec<&str> = Vec::new();
    for timeline in &benchmark.timelines {
        if !names.contains(&timeline.name.as_str()) {
            names.push(&timeline.name);
        }
    }
    names
        .into_iter()
        .map(|name| {
            // In the order of the drivers, as everywhere.
            let panels: Vec<Panel<'_>> = benchmark
                .drivers
                .iter()
                .filter_map(|driver| {
                    let timeline = benchmark
                        .timelines
                        .iter()
                        .find(|t| t.name == name && t.driver == driver.name)?;
                    Some(Panel { driver, timeline })
                })
                .collect();
            picture(name, &panels)
        })
        .collect()
}

fn picture(name: &str, panels: &[Panel<'_>]) -> Result<Picture> {
    let title = panels.first().map_or("", |panel| &panel.timeline.title);
    let most = panels.iter().map(Panel::end).fold(0.0, f64::max);
    let axis = Axis::of_times(most);
    let kinds: BTreeSet<Kind> = panels.iter().flat_map(Panel::kinds).collect();
    let head = MARGIN + TITLE + LINE;
    let height = head + panels.iter().map(Panel::height).sum::<i32>() + LINE + MARGIN;
    Picture::draw(
        &format!("timeline {name}"),
        format!("{title}: what each function was busy with, by driver"),
        height,
        |canvas| {
            drawing::title(canvas, title, (MARGIN, MARGIN + TITLE / 2 - 4))?;
            for (i, kind) in kinds.iter().enumerate() {
                let x = MARGIN + LEGEND_ENTRY * i as i32;
                legend(canvas, *kind, (x, MARGIN + TITLE + LINE / 2))?;
            }
            let mut y = head;
            for panel in panels {
                panel.draw(canvas, &axis, y)?;
                y += panel.height();
            }
            drawing::left_of(
                canvas,
                "time since the first began, ms",
                drawing::small(),
                (RIGHT, y + LINE / 2),
            )
        },
    )
}

fn legend(canvas: &Canvas<'_>, kind: Kind, (x, y): (i32, i32)) -> Result<()> {
    let (colour, half) = (colour(kind), 6);
    canvas.draw(&Rectangle::new(
        [(x, y - half), (x + 18, y + half)],
        colour.filled(),
    ))?;
    drawing::right_of(canvas, name(kind), drawing::small(), (x + 24, y))
}

fn colour(kind: Kind) -> RGBColor {
    match kind {
        Kind::Opens => drawing::BLUE,
        Kind::Releases => drawing::GREEN,
        Kind::Binds => drawing::PURPLE,
        Kind::Waits => drawing::GREY,
        Kind::FunctionReset => drawing::ORANGE,
        Kind::BusReset => drawing::VERMILION,
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Opens => "opens",
        Kind::Releases => "releases",
        Kind::Binds => "binds",
        Kind::Waits => "waits for a lock",
        Kind::FunctionReset => "function reset",
        Kind::BusReset => "bus reset",
    }
}

impl Panel<'_> {
    fn kinds(&self) -> impl Iterator<Item = Kind> + '_ {
        let spans = self.timeline.rows.iter().flat_map(|row| &row.spans);
        spans.map(|span| span.kind)
    }

    /// When the last thing in it ended.
    fn end(&self) -> f64 {
        let spans = self.timeline.rows.iter().flat_map(|row| &row.spans);
        spans
            .map(|span| span.end)
            .fold(self.timeline.wall, f64::max)
    }

    fn row_height(&self) -> i32 {
        let rows = self.timeline.rows.len().max(1);
        (ROWS / rows).clamp(LOWEST_ROW, HIGHEST_ROW) as i32
    }

    fn rows_height(&self) -> i32 {
        self.row_height() * self.timeline.rows.len() as i32
    }

    fn height(&self) -> i32 {
        CAPTION + self.rows_height() + AXIS_AREA
    }

    fn draw(&self, canvas: &Canvas<'_>, axis: &Axis, top: i32) -> Result<()> {
        let mut caption = format!(
            "{}: {} ms",
            self.driver.name,
            figures::milliseconds(self.timeline.wall)
        );
        if let Some(explanation) = self.driver.explanation() {
            caption += &format!(" ({explanation})");
        }
        drawing::right_of(
            canvas,
            &caption,
            drawing::small(),
            (MARGIN, top + CAPTION - LINE / 2),
        )?;

        let top = top + CAPTION;
        let bottom = top + self.rows_height();
        let at = |time: f64| axis.map(&time, (LEFT, RIGHT));
        for (time, label) in axis.labels() {
            let x = at(*time);
            canvas.draw(&PathElement::new([(x, top), (x, bottom)], drawing::GRID))?;
            canvas.draw(&PathElement::new(
                [(x, bottom), (x, bottom + 4)],
                drawing::AXIS,
            ))?;
            drawing::centred_on(canvas, label, drawing::small(), (x, bottom + 14))?;
        }

        let height = self.row_height();
        // As many addresses as have room below each other.
        let labelled = (13 + height - 1) / height;
        for (i, row) in self.timeline.rows.iter().enumerate() {
            let i = i as i32;
            let middle = top + i * height + height / 2;
            if i % labelled == 0 {
                drawing::left_of(
                    canvas,
                    &row.function,
                    drawing::address(),
                    (LEFT - 6, middle),
                )?;
            }
            // What is part of something else is drawn after it, and narrower. Kinds are ordered so.
            let mut spans: Vec<_> = row.spans.iter().collect();
            spans.sort_by_key(|span| span.kind);
            for span in spans {
                let half = match span.kind {
                    Kind::Opens | Kind::Releases | Kind::Binds => height * 2 / 5,
                    Kind::Waits | Kind::FunctionReset | Kind::BusReset => height * 3 / 10,
                };
                let half = half.max(1);
                let start = at(span.start);
                // What is too short for the scale can be seen all the same.
                let end = at(span.end).max(start + 1);
                canvas.draw(&Rectangle::new(
                    [(start, middle - half), (end, middle + half)],
                    colour(span.kind).filled(),
                ))?;
            }
        }
        canvas.draw(&PathElement::new(
            [(LEFT, top), (LEFT, bottom), (RIGHT, bottom)],
            drawing::AXIS,
        ))?;
        Ok(())
    }
}
