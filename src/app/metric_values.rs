//! The figures of an application: what counts, what goes up and down, what is spread out.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::rc::Rc;
use std::time::Duration;

/// A figure that only goes up; by [`Metrics::counter`](super::metrics::Metrics::counter). Clones are of one
/// figure.
///
/// ```
/// use wirewheel::{Application, Response};
/// fn module(app: &mut Application) {
///     let rings = app.metrics().counter("doorbell_rings_total", "Times that somebody rang.");
///     app.routing(|route| {
///         route.stats("/metrics");
///         route.post("/ring", move |_call, _body| {
///             rings.increment();
///             rings.add(0); // or more at once
///             Response::text(format!("{} times", rings.get()))
///         });
///     });
/// }
/// # wirewheel::Server::bind("127.0.0.1:0", module)?.spawn()?.shutdown(std::time::Duration::ZERO);
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Counter(Rc<Cell<u64>>);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.set(self.0.get().wrapping_add(count)); // a counter that begins anew is what readers know
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// A figure that goes up and down; by [`Metrics::gauge`](super::metrics::Metrics::gauge). Clones are of one
/// figure.
///
/// ```
/// use wirewheel::metrics::Gauge;
/// fn measured(temperature: &Gauge, celsius: f64) {
///     temperature.set(celsius);
///     temperature.add(-0.5); // what this sensor shows too much
///     println!("{} degrees", temperature.get());
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Gauge(Rc<Cell<f64>>);

impl Gauge {
    /// It is this from now on.
    pub fn set(&self, value: f64) {
        self.0.set(value);
    }

    /// So much more, or less.
    pub fn add(&self, difference: f64) {
        self.0.set(self.0.get() + difference);
    }

    /// What it is.
    pub fn get(&self) -> f64 {
        self.0.get()
    }
}

/// How values are spread out, by [`Metrics::histogram`](super::metrics::Metrics::histogram): how many are at
/// most as large as each bucket, how many there are, and their sum. Clones are of one histogram.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::metrics::Histogram;
/// fn answered(latency: &Histogram, size: &Histogram, took: Duration, bytes: u32) {
///     latency.observe_duration(took); // in seconds, as is the custom
///     size.observe(f64::from(bytes));
///     println!("{} answers in {} s", latency.count(), latency.sum());
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Histogram(Rc<Spread>);

#[derive(Debug)]
struct Spread {
    /// The upper bounds, ascending.
    bounds: Rc<[f64]>,
    /// How many values are in each bucket and in none before it; the last has no bound.
    counts: Box<[Cell<u64>]>,
    sum: Cell<f64>,
}

impl Histogram {
    fn new(bounds: &Rc<[f64]>) -> Self {
        let counts = (0..=bounds.len()).map(|_| Cell::new(0)).collect();
        Self(Rc::new(Spread { bounds: Rc::clone(bounds), counts, sum: Cell::new(0.0) }))
    }

    /// Counts a value. What is no number (NaN) is not counted.
    pub fn observe(&self, value: f64) {
        if value.is_nan() {
            return;
        }
        let place = self.0.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.0.counts.get(place) {
            count.set(count.get().wrapping_add(1));
            self.0.sum.set(self.0.sum.get() + value);
        }
    }

    /// Counts a time, in seconds.
    pub fn observe_duration(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(Cell::get).fold(0, u64::wrapping_add)
    }

    /// Their sum.
    pub fn sum(&self) -> f64 {
        self.0.sum.get()
    }
}

/// Figures of one name that differ in their labels; by
/// [`Metrics::counters`](super::metrics::Metrics::counters) and its like. Clones are of the same figures.
///
/// At most so many as was said have figures of their own. What comes beyond that, or has a value of more than
/// 128 bytes, is counted together, with `other` for each label: values may come from peers, and every one
/// costs memory here and wherever the figures are read.
///
/// ```
/// use wirewheel::Application;
/// use wirewheel::metrics::{Counter, Family};
/// fn module(app: &mut Application) {
///     let commands: Family<Counter> =
///         app.metrics().counters("commands_total", "Commands, by name.", &["name"], 20);
///     commands.with(&["open"]).increment();
///     let closing = commands.with(&["close"]); // looked up once
///     closing.add(2);
/// }
/// # wirewheel::Server::bind("127.0.0.1:0", module)?.spawn()?.shutdown(std::time::Duration::ZERO);
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
#[derive(Clone)]
pub struct Family<T>(Rc<Series<T>>);

struct Series<T> {
    labels: usize,
    most: usize,
    make: Box<dyn Fn() -> T>,
    known: RefCell<Known<T>>,
}

struct Known<T> {
    by_values: HashMap<Box<[Box<str>]>, T>,
    /// In the order in which they came, which is that of the page.
    order: Vec<(Box<[Box<str>]>, T)>,
    other: Option<T>,
}

/// The value of each label of those that are counted together.
const OTHER: &str = "other";
/// The longest value of a label, in bytes.
const VALUE_MAX_BYTES: usize = 128;

impl<T> fmt::Debug for Family<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("len", &self.0.known.borrow().order.len()).finish()
    }
}

impl<T: Clone> Family<T> {
    pub(super) fn new(labels: usize, most: usize, make: impl Fn() -> T + 'static) -> Self {
        let known = Known { by_values: HashMap::new(), order: Vec::new(), other: None };
        Self(Rc::new(Series { labels, most, make: Box::new(make), known: RefCell::new(known) }))
    }

    /// The figure with these values of the labels, in their order.
    ///
    /// # Panics
    /// If they are more or fewer than the family has labels.
    pub fn with(&self, values: &[&str]) -> T {
        let Series { labels, most, make, known } = &*self.0;
        assert_eq!(values.len(), *labels, "a value for each label of the family");
        let known = &mut *known.borrow_mut();
        let key: Box<[Box<str>]> = values.iter().map(|value| Box::from(*value)).collect();
        if let Some(found) = known.by_values.get(&key) {
            return found.clone();
        }
        let is_long = values.iter().any(|value| value.len() > VALUE_MAX_BYTES);
        // Two of the same labels are refused by whoever reads the page, and with them all others.
        let is_other = !values.is_empty() && values.iter().all(|value| *value == OTHER);
        if is_long || is_other || known.order.len() >= *most {
            return known.other.get_or_insert_with(make).clone();
        }
        let made = make();
        known.by_values.insert(key.clone(), made.clone());
        known.order.push((key, made.clone()));
        made
    }
}

/// A kind of figure, as the page has it.
pub(super) trait Figure {
    const TYPE: &'static str;

    /// Writes its lines; `labels` is what stands between the braces, or nothing.
    fn write_to(&self, text: &mut String, name: &str, labels: &str);
}

impl Figure for Counter {
    const TYPE: &'static str = "counter";

    fn write_to(&self, text: &mut String, name: &str, labels: &str) {
        write_line(text, name, labels, format_args!("{}", self.get()));
    }
}

impl Figure for Gauge {
    const TYPE: &'static str = "gauge";

    fn write_to(&self, text: &mut String, name: &str, labels: &str) {
        write_line(text, name, labels, format_args!("{}", Number(self.get())));
    }
}

impl Figure for Histogram {
    const TYPE: &'static str = "histogram";

    fn write_to(&self, text: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let bounds = self.0.bounds.iter().copied().chain([f64::INFINITY]);
        let mut count = 0_u64;
        for (bound, in_bucket) in bounds.zip(&self.0.counts) {
            // Each bucket has those before it too.
            count = count.wrapping_add(in_bucket.get());
            let labels = format!("{labels}{comma}le=\"{}\"", Number(bound));
            write_line(text, &format!("{name}_bucket"), &labels, format_args!("{count}"));
        }
        let sum = Number(self.sum());
        write_line(text, &format!("{name}_sum"), labels, format_args!("{sum}"));
        write_line(text, &format!("{name}_count"), labels, format_args!("{count}"));
    }
}

fn write_line(text: &mut String, name: &str, labels: &str, value: fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = match labels {
        "" => writeln!(text, "{name} {value}"),
        _ => writeln!(text, "{name}{{{labels}}} {value}"),
    };
}

/// A number as the text format has it.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            // NaN as it is; never with an exponent, however small.
            value => write!(f, "{value}"),
        }
    }
}

/// Writes all figures of a family, whose labels have these names.
pub(super) fn write_family<T: Figure + Clone>(
    family: &Family<T>,
    text: &mut String,
    name: &str,
    labels: &[String],
) {
    let known = family.0.known.borrow();
    for (values, figure) in &known.order {
        let pairs = labels.iter().zip(values).map(|(label, value)| pair(label, value));
        figure.write_to(text, name, &pairs.collect::<Vec<_>>().join(","));
    }
    if let Some(other) = &known.other {
        let pairs = labels.iter().map(|label| pair(label, OTHER));
        other.write_to(text, name, &pairs.collect::<Vec<_>>().join(","));
    }
}

fn pair(label: &str, value: &str) -> String {
    let mut pair = format!("{label}=\"");
    for letter in value.chars() {
        match letter {
            '\\' => pair.push_str("\\\\"),
            '"' => pair.push_str("\\\""),
            '\n' => pair.push_str("\\n"),
            letter => pair.push(letter),
        }
    }
    pair.push('"');
    pair
}

pub(super) fn histogram(bounds: &Rc<[f64]>) -> Histogram {
    Histogram::new(bounds)
}
