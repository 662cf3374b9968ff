//! Line charts as SVG.

use std::fmt::Write as _;

/// How values become places on an axis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Scale {
    /// From 0 on.
    Linear,
    /// Each power of ten takes the same room.
    Log,
    /// Shares below 1, of which each further nine takes the same room.
    Nines,
}

/// An axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub(crate) label: &'static str,
    pub(crate) scale: Scale,
}

/// A chart with a line for each series.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<(String, Vec<[f64; 2]>)>,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
/// The room that is drawn in.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 590.0;
const TOP: f64 = 45.0;
const BOTTOM: f64 = 365.0;

/// Colours that most people can tell apart (Okabe and Ito).
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000",
];

impl Scale {
    /// A place on the axis, in any unit.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.log10(),
            Self::Nines => -(1.0 - value).log10(),
        }
    }

    /// Whether a value has a place.
    fn has(self, value: f64) -> bool {
        self.place(value).is_finite()
    }

    /// Values to be named on an axis that goes from one place to another, with their names.
    fn ticks(self, from: f64, to: f64) -> Vec<(f64, String)> {
        match self {
            Self::Linear => {
                let step = step((to - from) / 6.0);
                let count = (0..).map(|n| f64::from(n) * step);
                let digits = if step < 0.1 {
                    2
                } else {
                    usize::from(step < 1.0)
                };
                count
                    .take_while(|&value| value <= to + step * 1e-6)
                    .map(|value| (value, format!("{value:.digits$}")))
                    .collect()
            }
            Self::Log => (-6..9)
                .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
                .filter(|&value| (from - 1e-9..=to + 1e-9).contains(&self.place(value)))
                .map(|value| (value, format!("{value}")))
                .collect(),
            Self::Nines => [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999]
                .into_iter()
                .filter(|&value| self.place(value) <= to + 1e-9)
                .map(|value| (value, format!("{}%", (value * 1e6).round() / 1e4)))
                .collect(),
        }
    }
}

/// The next round number: 1, 2 or 5 with zeros.
fn step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let digits = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
    let enough = digits
        .into_iter()
        .find(|&step| step >= least * (1.0 - 1e-9));
    enough.unwrap_or(power * 10.0)
}

/// A line between two ends of which one is `value` on a scale, drawn from `low` to `high`.
struct Ruler {
    scale: Scale,
    from: f64,
    to: f64,
    low: f64,
    high: f64,
}

impl Ruler {
    fn new(scale: Scale, values: impl Iterator<Item = f64>, low: f64, high: f64) -> Self {
        let places = values.filter(|&value| scale.has(value));
        let (mut from, mut to) = places
            .map(|value| scale.place(value))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(from, to), place| {
                (from.min(place), to.max(place))
            });
        if scale != Scale::Log {
            from = 0.0;
        }
        if !to.is_finite() || !from.is_finite() || to - from < 1e-9 {
            (from, to) = (0.0, 1.0);
        }
        Self {
            scale,
            from,
            to,
            low,
            high,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (self.scale.place(value) - self.from) / (self.to - self.from);
        self.low + share * (self.high - self.low)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        self.scale.ticks(self.from, self.to)
    }
}

impl Chart {
    /// The document.
    pub(crate) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|(_, points)| points);
        let x = Ruler::new(self.x.scale, points().map(|p| p[0]), LEFT, RIGHT);
        let y = Ruler::new(self.y.scale, points().map(|p| p[1]), BOTTOM, TOP);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
        );
        text(&mut svg, LEFT, 25.0, "start", &self.title);
        for (value, name) in x.ticks() {
            let at = x.at(value);
            line(&mut svg, [at, TOP], [at, BOTTOM]);
            text(&mut svg, at, BOTTOM + 18.0, "middle", &name);
        }
        for (value, name) in y.ticks() {
            let at = y.at(value);
            line(&mut svg, [LEFT, at], [RIGHT, at]);
            text(&mut svg, LEFT - 8.0, at + 4.0, "end", &name);
        }
        let middle = f64::midpoint(LEFT, RIGHT);
        text(&mut svg, middle, BOTTOM + 40.0, "middle", self.x.label);
        text(&mut svg, 8.0, TOP - 8.0, "start", self.y.label);
        for (index, (name, points)) in self.series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let drawn = points
                .iter()
                .filter(|p| self.x.scale.has(p[0]) && self.y.scale.has(p[1]))
                .map(|p| format!("{:.1},{:.1}", x.at(p[0]), y.at(p[1])))
                .collect::<Vec<String>>()
                .join(" ");
            let row = TOP + 12.0 + 22.0 * index as f64;
            let _infallible = write!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
                 points=\"{drawn}\"/>\n\
                 <rect x=\"{}\" y=\"{}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>\n",
                RIGHT + 15.0,
                row - 6.0
            );
            text(&mut svg, RIGHT + 35.0, row, "start", name);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn line(svg: &mut String, from: [f64; 2], to: [f64; 2]) {
    let ([x1, y1], [x2, y2]) = (from, to);
    let _infallible = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _infallible = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_within_the_axis() {
        let names = |scale: Scale, from, to| {
            let ticks = scale.ticks(from, to);
            ticks.into_iter().map(|(_, name)| name).collect::<Vec<_>>()
        };
        assert_eq!(
            names(Scale::Linear, 0.0, 1.1),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(names(Scale::Log, -0.5, 1.0), ["0.5", "1", "2", "5", "10"]);
        assert_eq!(
            names(Scale::Nines, 0.0, 3.0),
            ["0%", "50%", "90%", "99%", "99.9%"]
        );
    }

    #[test]
    fn a_series_is_drawn_from_corner_to_corner_and_named() {
        let axis = |scale| Axis {
            label: "label",
            scale,
        };
        let chart = Chart {
            title: "a < b".to_owned(),
            x: axis(Scale::Linear),
            y: axis(Scale::Log),
            // The last one has no place on a scale of powers.
            series: vec![("one".to_owned(), vec![[0.0, 0.1], [4.0, 10.0], [5.0, 0.0]])],
        };
        let svg = chart.svg();
        assert!(svg.contains("points=\"70.0,365.0 486.0,45.0\""), "{svg}");
        assert!(svg.contains(">a &lt; b<") && svg.contains(">one<"), "{svg}");
    }
}
