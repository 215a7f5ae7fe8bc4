//! Owns what is measured: the server's CPU time, the client's, and the spread of response times.

use std::time::{Duration, Instant};

use crate::{Outcome, Plan};

/// CPU time of all threads of a process, in nanoseconds, from the scheduler's own account.
fn cpu_nanos(pid: u32) -> Outcome<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the two reads.
        let Ok(line) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        sum += line.split_whitespace().next().ok_or("no schedstat")?.parse::<u64>()?;
    }
    Ok(sum)
}

/// The part of a run that counts: after the warm-up, until the time is over.
pub(crate) struct Window {
    warm_until: Instant,
    length: Duration,
    pid: Option<u32>,
    begun: Option<Begun>,
}

struct Begun {
    at: Instant,
    count: u64,
    server: u64,
    client: u64,
}

impl Window {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self::of(plan, plan.pid)
    }

    /// That of a process which is not in the plan.
    pub(crate) fn of(plan: &Plan, pid: Option<u32>) -> Self {
        let warm = if plan.total.is_some() { Duration::ZERO } else { plan.warm };
        Self { warm_until: Instant::now() + warm, length: plan.seconds, pid, begun: None }
    }

    /// To be told the running count from time to time: true when the run is over.
    pub(crate) fn is_over(&mut self, count: u64) -> Outcome<bool> {
        let now = Instant::now();
        match &self.begun {
            None if now >= self.warm_until => {
                self.begin(count)?;
                Ok(false)
            }
            None => Ok(false),
            Some(begun) => Ok(now - begun.at >= self.length),
        }
    }

    pub(crate) fn begin(&mut self, count: u64) -> Outcome {
        self.begun = Some(Begun {
            at: Instant::now(),
            count,
            server: self.pid.map_or(Ok(0), cpu_nanos)?,
            client: cpu_nanos(std::process::id())?,
        });
        Ok(())
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Prints what was measured.
    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    pub(crate) fn print(&self, mode: &str, count: u64, times: Option<&Times>) -> Outcome {
        let begun = self.begun.as_ref().ok_or("the run ended before it began")?;
        let seconds = begun.at.elapsed().as_secs_f64();
        let messages = count.saturating_sub(begun.count).max(1) as f64;
        let server = self.pid.map_or(Ok(begun.server), cpu_nanos)? - begun.server;
        let client = cpu_nanos(std::process::id())? - begun.client;
        let (p50, p99) = times.map_or((0.0, 0.0), |times| (times.at(0.5), times.at(0.99)));
        println!(
            "{{\"mode\":\"{mode}\",\"count\":{messages},\"seconds\":{seconds:.3},\
             \"rate\":{:.0},\"server_us\":{:.4},\"server_share\":{:.3},\"client_share\":{:.3},\
             \"p50_us\":{p50:.1},\"p99_us\":{p99:.1}}}",
            messages / seconds,
            server as f64 / messages / 1e3,
            server as f64 / seconds / 1e9,
            client as f64 / seconds / 1e9,
        );
        Ok(())
    }
}

/// Response times in buckets of a sixteenth of a power of two.
pub(crate) struct Times {
    buckets: Vec<u64>,
}

const STEPS: u64 = 16;

impl Times {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; 64 * 16] }
    }

    pub(crate) fn add(&mut self, time: Duration, times: u64) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(STEPS);
        let power = u64::from(nanos.ilog2());
        let step = (nanos >> (power - 4)) & (STEPS - 1);
        if let Some(bucket) = self.buckets.get_mut((power * STEPS + step) as usize) {
            *bucket += times;
        }
    }

    /// The time below which this share lies, in microseconds.
    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    fn at(&self, share: f64) -> f64 {
        let all: u64 = self.buckets.iter().sum();
        let mut passed = 0;
        for (bucket, count) in (0u64..).zip(&self.buckets) {
            passed += count;
            if passed as f64 > share * all as f64 {
                let (power, step) = (bucket / STEPS, bucket % STEPS);
                return (((STEPS + step) as f64) + 0.5) * (power as f64 - 4.0).exp2() / 1e3;
            }
        }
        0.0
    }
}
