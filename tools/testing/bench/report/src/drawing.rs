// SPDX-License-Identifier: GPL-2.0

//! What the pictures have in common: how an SVG is made, its text and its colours.
//!
//! The size of a text is not known while a picture is drawn, since the font is the reader's. So
//! every text is in a line of its own, or anchored where nothing follows it.

use plotters::coord::Shift;
use plotters::element::Text;
use plotters::prelude::DrawingArea;
use plotters::prelude::IntoDrawingArea;
use plotters::prelude::IntoTextStyle;
use plotters::prelude::SVGBackend;
use plotters::style::text_anchor::HPos;
use plotters::style::text_anchor::Pos;
use plotters::style::text_anchor::VPos;
use plotters::style::Color;
use plotters::style::IntoFont;
use plotters::style::RGBColor;
use plotters::style::TextStyle;
use plotters::style::BLACK;
use plotters::style::WHITE;

use crate::File;
use crate::Result;

/// Where pictures are drawn, in pixels.
pub type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The width of all pictures.
pub const WIDTH: u32 = 900;

/// Lines of a grid, which should not be seen before what is drawn over them.
pub const GRID: RGBColor = RGBColor(0xE2, 0xE2, 0xE2);

/// Axes.
pub const AXIS: RGBColor = RGBColor(0x55, 0x55, 0x55);

/// Height of a line of text in a picture.
pub const LINE: i32 = 20;

/// Of Okabe and Ito's colours, which people see as different who see fewer colours than others.
pub const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xB2);
/// Another of them.
pub const VERMILION: RGBColor = RGBColor(0xD5, 0x5E, 0x00);
/// Another of them.
pub const GREEN: RGBColor = RGBColor(0x00, 0x9E, 0x73);
/// Another of them.
pub const PURPLE: RGBColor = RGBColor(0xCC, 0x79, 0xA7);
/// Another of them.
pub const ORANGE: RGBColor = RGBColor(0xE6, 0x9F, 0x00);
/// Not one of them: for what is not at work.
pub const GREY: RGBColor = RGBColor(0xB4, 0xB4, 0xB4);

// A backend's font size is that of the em box, which it takes to be this many times the font's.
const EM: f64 = 1.24;
const FONT: f64 = 12.0;
const TITLE_FONT: f64 = 16.0;

const SPDX: &str = "<!-- SPDX-License-Identifier: GPL-2.0 -->\n";

/// A picture of the report.
#[derive(Debug)]
pub struct Picture {
    /// Name of its file.
    pub file: String,
    /// What is said in its place where it cannot be seen.
    pub alternative: String,
    svg: String,
}

impl Picture {
    /// Draws a picture of that height; its file is called after `name`.
    pub fn draw(
        name: &str,
        alternative: String,
        height: i32,
        draw: impl FnOnce(&Canvas<'_>) -> Result<()>,
    ) -> Result<Self> {
        let mut svg = String::new();
        {
            let size = (WIDTH, height.unsigned_abs());
            let canvas = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            canvas.fill(&WHITE)?;
            draw(&canvas)?;
            canvas.present()?;
        }
        // Behind the first tag: some programs recognise an SVG by what its file begins with.
        let first = svg.find('\n').map_or(svg.len(), |end| end + 1);
        svg.insert_str(first, SPDX);
        Ok(Picture {
            file: format!("{}.svg", file_stem(name)),
            alternative,
            svg,
        })
    }

    /// The file of the picture.
    pub fn into_file(self) -> File {
        File {
            name: self.file,
            text: self.svg,
        }
    }
}

/// The style of small text.
pub fn small() -> TextStyle<'static> {
    font("sans-serif", FONT)
}

/// The style of addresses, whose digits should be below each other.
pub fn address() -> TextStyle<'static> {
    font("monospace", FONT - 1.0)
}

/// Writes the title of a picture, to the right of `at` and centred on it vertically.
pub fn title(canvas: &Canvas<'_>, title: &str, at: (i32, i32)) -> Result<()> {
    write(
        canvas,
        title,
        font("sans-serif", TITLE_FONT),
        HPos::Left,
        at,
    )
}

/// Writes text to the right of `at`, centred on it vertically.
pub fn right_of(
    canvas: &Canvas<'_>,
    text: &str,
    style: TextStyle<'_>,
    at: (i32, i32),
) -> Result<()> {
    write(canvas, text, style, HPos::Left, at)
}

/// Writes text to the left of `at`, centred on it vertically.
pub fn left_of(
    canvas: &Canvas<'_>,
    text: &str,
    style: TextStyle<'_>,
    at: (i32, i32),
) -> Result<()> {
    write(canvas, text, style, HPos::Right, at)
}

/// Writes text with its middle at `at`.
pub fn centred_on(
    canvas: &Canvas<'_>,
    text: &str,
    style: TextStyle<'_>,
    at: (i32, i32),
) -> Result<()> {
    write(canvas, text, style, HPos::Center, at)
}

fn write(
    canvas: &Canvas<'_>,
    text: &str,
    style: TextStyle<'_>,
    anchor: HPos,
    at: (i32, i32),
) -> Result<()> {
    let style = style.pos(Pos::new(anchor, VPos::Center));
    canvas.draw(&Text::new(text, at, style))?;
    Ok(())
}

fn font(family: &str, size: f64) -> TextStyle<'_> {
    (family, size * EM)
        .into_font()
        .color(&BLACK.to_rgba())
        .into_text_style(&(0, 0))
}

/// Of any name, one that is no trouble as a file name or in a link.
fn file_stem(name: &str) -> String {
    let words: Vec<String> = name
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    words.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names() {
        assert_eq!(file_stem("chart bus hot reset"), "chart-bus-hot-reset");
        assert_eq!(file_stem("../a/b"), "a-b");
    }
}
