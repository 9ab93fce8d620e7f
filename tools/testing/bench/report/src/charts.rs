// SPDX-License-Identifier: GPL-2.0

//! Line charts: the wall time of an operation over the number in which its cases differ.

use plotters::chart::ChartBuilder;
use plotters::element::Circle;
use plotters::element::EmptyElement;
use plotters::element::PathElement;
use plotters::element::Polygon;
use plotters::element::Rectangle;
use plotters::series::LineSeries;
use plotters::style::Color;
use plotters::style::RGBColor;
use plotters::style::ShapeStyle;

use crate::axis::Axis;
use crate::drawing;
use crate::drawing::Canvas;
use crate::drawing::Picture;
use crate::drawing::LINE;
use crate::drawing::WIDTH;
use crate::markdown;
use crate::model::Benchmark;
use crate::model::Driver;
use crate::model::Group;
use crate::statistics::Summary;
use crate::Result;

const MARGIN: i32 = 12;
const TITLE: i32 = 30;
const PLOT: i32 = 400;
const X_AREA: i32 = 48;
const Y_AREA: i32 = 70;

// Numbers nearer than this have their labels one over the other.
const LABEL_DISTANCE: f64 = 20.0;

/// Half the width of the ends of an error bar, which are to be seen beside a mark.
const CAP: i32 = 8;

const COLOURS: [RGBColor; 4] = [
    drawing::VERMILION,
    drawing::BLUE,
    drawing::GREEN,
    drawing::PURPLE,
];

/// The line of a driver.
struct Line<'a> {
    driver: &'a Driver,
    number: usize,
    /// Over `n`, in rising order.
    points: Vec<(f64, Summary)>,
}

/// Draws the chart of a group; none if its cases do not make a line.
pub fn picture(benchmark: &Benchmark, group: &Group<'_>) -> Result<Option<Picture>> {
    if group.cases.len() < 2 {
        return Ok(None);
    }
    let lines: Vec<Line<'_>> = benchmark
        .drivers
        .iter()
        .enumerate()
        .map(|(number, driver)| Line::new(group, driver, number))
        .filter(|line| !line.points.is_empty())
        .collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let title = markdown::title(group);
    let legend = LINE * lines.len() as i32;
    let height = MARGIN + TITLE + legend + PLOT + X_AREA + MARGIN;
    let picture = Picture::draw(
        &format!("chart {} {}", group.chart, group.operation),
        format!("{title}: wall time by driver"),
        height,
        |canvas| {
            drawing::title(canvas, &title, (MARGIN, MARGIN + TITLE / 2 - 4))?;
            for (i, line) in lines.iter().enumerate() {
                let y = MARGIN + TITLE + LINE * i as i32 + LINE / 2;
                line.legend(canvas, (MARGIN, y))?;
            }
            let (_, below) = canvas.split_vertically(MARGIN + TITLE + legend);
            plot(&below, group, &lines)
        },
    )?;
    Ok(Some(picture))
}

fn plot(canvas: &Canvas<'_>, group: &Group<'_>, lines: &[Line<'_>]) -> Result<()> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let pixels = f64::from(WIDTH as i32 - Y_AREA - 2 * MARGIN);
    let x = Axis::of_numbers(points().map(|(n, _)| *n), LABEL_DISTANCE / pixels);
    let y = Axis::of_times(points().fold(0.0, |most, (_, wall)| wall.most.max(most)));

    let mut chart = ChartBuilder::on(canvas)
        .margin(MARGIN)
        .margin_top(16)
        .x_label_area_size(X_AREA)
        .y_label_area_size(Y_AREA)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(drawing::GRID)
        .axis_style(drawing::AXIS)
        .label_style(drawing::small())
        .axis_desc_style(drawing::small())
        .x_desc(group.x)
        .y_desc("wall time, ms (median, from least to most)")
        .draw()?;

    // From the widest line to the narrowest: of two that are the same both can be seen.
    for line in lines {
        chart.draw_series(LineSeries::new(
            line.points.iter().map(|(n, wall)| (*n, wall.median)),
            line.stroke(),
        ))?;
        let origin = canvas.get_base_pixel();
        let at = |n: f64, wall: f64| {
            let (x, y) = chart.backend_coord(&(n, wall));
            (x - origin.0, y - origin.1)
        };
        for (n, wall) in &line.points {
            line.error_bar(canvas, at(*n, wall.most), at(*n, wall.least))?;
            line.marker(canvas, at(*n, wall.median))?;
        }
    }
    Ok(())
}

impl<'a> Line<'a> {
    fn new(group: &Group<'_>, driver: &'a Driver, number: usize) -> Self {
        let mut points: Vec<(f64, Summary)> = group
            .cases
            .iter()
            .filter_map(|case| Some((case.n as f64, Summary::of(case.walls(driver)?)?)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Line {
            driver,
            number,
            points,
        }
    }

    fn colour(&self) -> RGBColor {
        COLOURS[self.number % COLOURS.len()]
    }

    fn stroke(&self) -> ShapeStyle {
        self.colour().stroke_width([5, 3, 2][self.number.min(2)])
    }

    fn error_bar(&self, canvas: &Canvas<'_>, top: (i32, i32), bottom: (i32, i32)) -> Result<()> {
        canvas.draw(&PathElement::new([top, bottom], self.colour()))?;
        for (x, y) in [top, bottom] {
            let cap = [(x - CAP, y), (x + CAP, y)];
            canvas.draw(&PathElement::new(cap, self.colour()))?;
        }
        Ok(())
    }

    /// Marks differ in form, for those to whom the colours look alike.
    fn marker(&self, canvas: &Canvas<'_>, at: (i32, i32)) -> Result<()> {
        let filled = self.colour().filled();
        match self.number % 3 {
            0 => {
                canvas.draw(&(EmptyElement::at(at) + Rectangle::new([(-4, -4), (4, 4)], filled)))?
            }
            1 => canvas.draw(&Circle::new(at, 4, filled))?,
            _ => canvas
                .draw(&(EmptyElement::at(at) + Polygon::new([(-5, 4), (5, 4), (0, -5)], filled)))?,
        }
        Ok(())
    }

    fn legend(&self, canvas: &Canvas<'_>, (x, y): (i32, i32)) -> Result<()> {
        canvas.draw(&PathElement::new([(x, y), (x + 36, y)], self.stroke()))?;
        self.marker(canvas, (x + 18, y))?;
        let mut text = self.driver.name.clone();
        if let Some(explanation) = self.driver.explanation() {
            text += &format!(": {explanation}");
        }
        drawing::right_of(canvas, &text, drawing::small(), (x + 46, y))
    }
}
