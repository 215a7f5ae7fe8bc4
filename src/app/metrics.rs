//! The figures that an application has of its own: how they are set up, and what names they may have.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::rc::Rc;

use crate::app::metric_values::{
    Counter, Family, Figure, Gauge, Histogram, histogram, write_family,
};
use crate::app::own_metrics::OwnMetrics;
use crate::words::quoted::Quoted;

/// The figures of an application, which [`Routing::stats`](crate::Routing::stats) shows behind those of the
/// server; by [`Application::metrics`](crate::Application::metrics). Clones are of the same figures.
///
/// Names are as Prometheus and OpenMetrics want them: letters, digits and `_`, no digit first, not
/// `wirewheel_`; that of a counter ends in `_total`; the unit stands behind the name, such as `_seconds` or
/// `_bytes`. A mistake is kept and returned when the server starts, as that of a route is.
///
/// Of several loops each has figures of its own, and the page shows those of the loop that answers.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # {
/// use std::time::Duration;
/// use wirewheel::testing::TestApplication;
/// use wirewheel::{Application, Response};
/// let app = TestApplication::new(|app: &mut Application| {
///     let metrics = app.metrics();
///     let opened = metrics.counter("valve_opened_total", "Times that the valve was opened.");
///     let level = metrics.gauge("tank_level_ratio", "How full the tank is.");
///     let took = metrics.histogram("valve_seconds", "How long the valve took.", &[0.1, 1.0]);
///     app.routing(|route| {
///         route.stats("/metrics");
///         route.post("/open", move |_call, _body| {
///             opened.increment();
///             level.set(0.75);
///             took.observe_duration(Duration::from_millis(250));
///             Response::new(204)
///         });
///     });
/// })?;
/// app.post("/open", "text/plain", "");
/// let page = app.get("/metrics");
/// for line in [
///     "# TYPE valve_opened_total counter",
///     "valve_opened_total 1",
///     "tank_level_ratio 0.75",
///     "valve_seconds_bucket{le=\"0.1\"} 0",
///     "valve_seconds_bucket{le=\"1\"} 1",
///     "valve_seconds_bucket{le=\"+Inf\"} 1",
///     "valve_seconds_sum 0.25",
/// ] {
///     assert!(page.text().lines().any(|known| known == line), "{line}");
/// }
/// # }
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
#[derive(Clone, Default)]
pub struct Metrics(Rc<RefCell<Registry>>);

#[derive(Default)]
struct Registry {
    families: Vec<Box<dyn Written>>,
    /// The names that their lines have.
    names: Vec<String>,
    mistake: Option<String>,
}

/// A family with its name, help and labels.
struct Named<T> {
    name: String,
    help: String,
    labels: Vec<String>,
    family: Family<T>,
}

trait Written {
    fn write_to(&self, text: &mut String);
}

impl<T: Figure + Clone> Written for Named<T> {
    fn write_to(&self, text: &mut String) {
        let Self { name, help, labels, family } = self;
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", T::TYPE); // it does not fail
        write_family(family, text, name, labels);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("len", &self.0.borrow().families.len()).finish()
    }
}

impl OwnMetrics for Metrics {
    fn check(&self) -> Result<(), String> {
        match &self.0.borrow().mistake {
            Some(mistake) => Err(mistake.clone()),
            None => Ok(()),
        }
    }

    fn write_to(&self, text: &mut String) {
        self.0.borrow().families.iter().for_each(|family| family.write_to(text));
    }
}

/// Suffixes of the lines of a histogram.
const OF_HISTOGRAM: [&str; 3] = ["_bucket", "_sum", "_count"];
/// The most series of a family, and buckets of a histogram.
const SERIES_MAX: usize = 10_000;
const BUCKETS_MAX: usize = 100;

impl Metrics {
    /// A counter. Its name ends in `_total`.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.counters(name, help, &[], 1).with(&[])
    }

    /// Counters that differ in these labels; at most `max_series` combinations of values are counted
    /// apart, see [`Family`].
    ///
    /// ```
    /// fn module(app: &mut wirewheel::Application) {
    ///     let metrics = app.metrics();
    ///     let read = metrics.counters("reads_total", "Reads, by sensor.", &["sensor"], 50);
    ///     read.with(&["cellar"]).increment();
    ///     let levels = metrics.gauges("level_ratio", "Levels, by tank.", &["tank"], 10);
    ///     levels.with(&["rain"]).set(0.4);
    ///     let bounds = [0.01, 0.1, 1.0];
    ///     let took = metrics.histograms("read_seconds", "Reads, by bus.", &bounds, &["bus"], 4);
    ///     took.with(&["can0"]).observe(0.02);
    /// }
    /// # wirewheel::Server::bind("127.0.0.1:0", module)?.spawn()?.shutdown(std::time::Duration::ZERO);
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    pub fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        max_series: usize,
    ) -> Family<Counter> {
        if !name.ends_with("_total") {
            self.mistake(name, "the name of a counter ends in _total");
        }
        self.family(name, help, labels, max_series, &[""], Counter::default)
    }

    /// A gauge.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.gauges(name, help, &[], 1).with(&[])
    }

    /// Gauges that differ in these labels, as [`counters`](Self::counters) do.
    pub fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        max_series: usize,
    ) -> Family<Gauge> {
        self.check_suffix(name);
        self.family(name, help, labels, max_series, &[""], Gauge::default)
    }

    /// A histogram with these upper bounds of its buckets, in ascending order, at most 100; a last one for
    /// all that is larger is added.
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        self.histograms(name, help, bounds, &[], 1).with(&[])
    }

    /// Histograms that differ in these labels, as [`counters`](Self::counters) do; none may be `le`.
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        bounds: &[f64],
        labels: &[&str],
        max_series: usize,
    ) -> Family<Histogram> {
        self.check_suffix(name);
        let ascends = bounds.is_sorted_by(|one, other| one < other);
        let are_finite = bounds.iter().all(|bound| bound.is_finite());
        if bounds.is_empty() || bounds.len() > BUCKETS_MAX || !ascends || !are_finite {
            let most = format!("give 1 to {BUCKETS_MAX} finite bounds in ascending order");
            self.mistake(name, &most);
        }
        if labels.contains(&"le") {
            self.mistake(name, "the label le is that of the buckets: take another name");
        }
        let bounds: Rc<[f64]> = bounds.into();
        let make = move || histogram(&bounds);
        self.family(name, help, labels, max_series, &OF_HISTOGRAM, make)
    }

    fn family<T: Figure + Clone + 'static>(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        max_series: usize,
        suffixes: &[&str],
        make: impl Fn() -> T + 'static,
    ) -> Family<T> {
        self.check_names(name, labels);
        if !(1..=SERIES_MAX).contains(&max_series) {
            self.mistake(name, &format!("max_series is {max_series}: give 1 to {SERIES_MAX}"));
        }
        let family = Family::new(labels.len(), max_series, make);
        let named = Named {
            name: name.to_owned(),
            help: help.to_owned(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            family: family.clone(),
        };
        self.add_names(name, suffixes);
        self.0.borrow_mut().families.push(Box::new(named));
        family
    }

    /// The lines of one must not be taken for those of another.
    fn add_names(&self, name: &str, suffixes: &[&str]) {
        let own = suffixes.iter().map(|suffix| format!("{name}{suffix}")).chain([name.to_owned()]);
        let own: Vec<String> = own.collect();
        let is_taken = own.iter().any(|name| self.0.borrow().names.contains(name));
        if is_taken {
            self.mistake(
                name,
                "it is there already, or its lines are those of a histogram: rename one",
            );
        }
        self.0.borrow_mut().names.extend(own);
    }

    fn check_names(&self, name: &str, labels: &[&str]) {
        if !is_name(name) {
            self.mistake(name, "a name has letters, digits and _, and no digit first");
        }
        if name.starts_with("wirewheel_") {
            self.mistake(name, "wirewheel_ is for the server's own: take another name");
        }
        for (number, label) in labels.iter().enumerate() {
            if !is_name(label) || label.starts_with("__") {
                let label = Quoted(label);
                let mistake =
                    format!("label {label}: letters, digits and _, no digit first, no __ first");
                self.mistake(name, &mistake);
            }
            if labels.iter().take(number).any(|before| before == label) {
                self.mistake(name, &format!("label {} is there twice", Quoted(label)));
            }
        }
    }

    /// OpenMetrics keeps these endings for what only counters and histograms have.
    fn check_suffix(&self, name: &str) {
        let reserved = ["_total", "_created", "_info"].iter().chain(&OF_HISTOGRAM);
        if let Some(suffix) = reserved.into_iter().find(|suffix| name.ends_with(**suffix)) {
            self.mistake(
                name,
                &format!("{suffix} is for counters and parts of histograms: rename it"),
            );
        }
    }

    fn mistake(&self, name: &str, mistake: &str) {
        let line = || format!("metric {}: {mistake}", Quoted(name));
        self.0.borrow_mut().mistake.get_or_insert_with(line);
    }
}

fn is_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().all(is_letter) && text.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        let mut text = String::new();
        metrics.write_to(&mut text);
        text
    }

    #[test]
    fn families_are_written_in_order_and_what_is_in_them_is_escaped() {
        let metrics = Metrics::default();
        let counters = metrics.counters("a_total", "one\\two\nthree", &["x", "y"], 2);
        counters.with(&["q\"\\", "l\nf"]).increment();
        counters.with(&["2", ""]).add(u64::MAX);
        metrics.gauge("b", "").set(-1.5);
        let expected = "# HELP a_total one\\\\two\\nthree\n# TYPE a_total counter\n\
            a_total{x=\"q\\\"\\\\\",y=\"l\\nf\"} 1\na_total{x=\"2\",y=\"\"} 18446744073709551615\n\
            # HELP b \n# TYPE b gauge\nb -1.5\n";
        assert_eq!(text(&metrics), expected);
        for (value, shown) in [
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (1e-7, "0.0000001"),
            (3.0, "3"),
        ] {
            let metrics = Metrics::default();
            metrics.gauge("g", "h").set(value);
            assert!(text(&metrics).ends_with(&format!("\ng {shown}\n")), "{value}");
        }
        assert_eq!(metrics.check(), Ok(()));
    }

    #[test]
    fn a_family_has_so_many_series_and_one_for_all_others() {
        let metrics = Metrics::default();
        let counters = metrics.counters("a_total", "h", &["path"], 2);
        for path in ["/", "/x", "/y", "/z", "/", &"l".repeat(129)] {
            counters.with(&[path]).increment();
        }
        let lines: Vec<String> = text(&metrics).lines().skip(2).map(str::to_owned).collect();
        let expected =
            ["a_total{path=\"/\"} 2", "a_total{path=\"/x\"} 1", "a_total{path=\"other\"} 3"];
        assert_eq!(lines, expected);
        assert_eq!(counters.with(&["/y"]).get(), 3);
    }

    /// Values may come from peers.
    #[test]
    fn a_value_that_is_called_other_is_none_of_its_own() {
        let metrics = Metrics::default();
        let counters = metrics.counters("a_total", "h", &["path", "by"], 2);
        for values in [["other", "other"], ["other", "x"], ["/", "x"], ["/y", "x"]] {
            counters.with(&values).increment();
        }
        let lines: Vec<String> = text(&metrics).lines().skip(2).map(str::to_owned).collect();
        let expected = [
            "a_total{path=\"other\",by=\"x\"} 1",
            "a_total{path=\"/\",by=\"x\"} 1",
            "a_total{path=\"other\",by=\"other\"} 2",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_histogram_counts_each_value_in_every_bucket_that_it_fits() {
        let metrics = Metrics::default();
        let histogram = metrics.histograms("s_seconds", "h", &[0.5, 1.0], &["x"], 3).with(&["v"]);
        for value in [0.5, 0.500_1, 1.0, 7.0, -3.0, f64::NAN, f64::INFINITY] {
            histogram.observe(value);
        }
        assert_eq!((histogram.count(), histogram.sum()), (6, f64::INFINITY));
        let expected = "s_seconds_bucket{x=\"v\",le=\"0.5\"} 2\ns_seconds_bucket{x=\"v\",le=\"1\"} 4\n\
            s_seconds_bucket{x=\"v\",le=\"+Inf\"} 6\ns_seconds_sum{x=\"v\"} +Inf\n\
            s_seconds_count{x=\"v\"} 6\n";
        assert!(text(&metrics).ends_with(expected), "{}", text(&metrics));
    }

    #[test]
    fn mistakes_are_kept_by_name_and_say_what_to_do() {
        type Make<'a> = &'a dyn Fn(&Metrics);
        let mistake = |make: Make<'_>| {
            let metrics = Metrics::default();
            make(&metrics);
            metrics.check().err().unwrap_or_default()
        };
        let cases: [(Make<'_>, &str); 14] = [
            (&|it| drop(it.counter("a", "")), "ends in _total"),
            (&|it| drop(it.counter("1_total", "")), "no digit first"),
            (&|it| drop(it.gauge("", "")), "a name has letters"),
            (&|it| drop(it.gauge("a:b", "")), "a name has letters"),
            (&|it| drop(it.gauge("wirewheel_x", "")), "take another name"),
            (&|it| drop(it.gauge("a_total", "")), "_total is for counters"),
            (&|it| drop(it.histogram("a_sum", "", &[1.0])), "_sum is for counters"),
            (&|it| drop(it.histogram("a", "", &[])), "finite bounds"),
            (&|it| drop(it.histogram("a", "", &[1.0, 1.0])), "finite bounds"),
            (&|it| drop(it.histogram("a", "", &[f64::INFINITY])), "finite bounds"),
            (
                &|it| drop(it.histogram("a", "", &(0..102).map(f64::from).collect::<Vec<_>>())),
                "1 to 100",
            ),
            (&|it| drop(it.histograms("a", "", &[1.0], &["le"], 1)), "label le"),
            (&|it| drop(it.gauges("a", "", &["x", "x"], 1)), "twice"),
            (&|it| drop(it.gauges("a", "", &["__x"], 0)), "no __ first"),
        ];
        for (number, (make, expected)) in cases.into_iter().enumerate() {
            let found = mistake(make);
            assert!(found.starts_with("metric ") && found.contains(expected), "{number}: {found}");
        }
        assert!(mistake(&|it| drop(it.gauges("a", "", &["x"], 0))).contains("max_series is 0"));
        let twice = mistake(&|it| drop((it.gauge("a", ""), it.gauge("a", ""))));
        assert!(twice.contains("rename one"), "{twice}");
    }
}
