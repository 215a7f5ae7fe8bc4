//! Owns the echo load: each connection keeps `depth` messages in flight.

use std::collections::VecDeque;
use std::time::Instant;

use crate::measure::{Times, Window};
use crate::swarm::Swarm;
use crate::traffic::{READ_BYTES, Stream};
use crate::{Outcome, Plan};

/// One connection's place in both streams.
#[derive(Default)]
pub(crate) struct Course {
    /// Bytes that are to be sent, the frame that has begun included.
    unsent: usize,
    send_at: usize,
    receive_at: usize,
    /// When messages were sent: the time and how many at once.
    sent: VecDeque<(Instant, usize)>,
}

impl Course {
    /// Has so many more messages sent.
    pub(crate) fn start(
        &mut self,
        swarm: &mut Swarm,
        index: usize,
        out: &Stream,
        messages: usize,
    ) -> Outcome {
        self.unsent += messages * out.frame_len;
        self.pump(swarm, index, out)
    }

    pub(crate) fn pump(&mut self, swarm: &mut Swarm, index: usize, out: &Stream) -> Outcome {
        while self.unsent > 0 {
            let piece = out.slice(self.send_at, self.unsent);
            let sent = swarm.send(index, piece)?;
            self.unsent -= sent;
            self.send_at = (self.send_at + sent) % out.frame_len;
            if sent < piece.len() {
                break;
            }
        }
        Ok(())
    }

    /// Reads once and compares: how many messages are complete now.
    pub(crate) fn receive(
        &mut self,
        swarm: &mut Swarm,
        index: usize,
        expected: &Stream,
        buffer: &mut [u8],
    ) -> Outcome<usize> {
        let n = swarm.receive(index, buffer)?;
        let piece = &buffer[..n];
        if piece != expected.slice(self.receive_at, n) {
            return Err(format!("connection {index}: other bytes than were sent").into());
        }
        let end = self.receive_at + n;
        self.receive_at = end % expected.frame_len;
        Ok(end / expected.frame_len)
    }
}

pub(crate) fn run(plan: &Plan) -> Outcome {
    let out = Stream::outgoing(plan.size, plan.text);
    let expected = Stream::incoming(plan.size, plan.text);
    let mut swarm = Swarm::new(plan, false)?;
    swarm.open(plan.connections + plan.idle)?;
    let window = Window::new(plan);
    exchange(plan, &mut swarm, window, "echo", &out, |swarm, course, index, buffer| {
        course.receive(swarm, index, &expected, buffer)
    })
}

/// Keeps messages in flight on each connection, until the plan is fulfilled. `receive` reads once: how many
/// answers are complete now.
pub(crate) fn exchange(
    plan: &Plan,
    swarm: &mut Swarm,
    mut window: Window,
    name: &str,
    out: &Stream,
    mut receive: impl FnMut(&mut Swarm, &mut Course, usize, &mut [u8]) -> Outcome<usize>,
) -> Outcome {
    let mut courses: Vec<Course> = (0..plan.connections).map(|_| Course::default()).collect();
    let mut buffer = vec![0; READ_BYTES];
    let mut times = Times::new();
    let (mut done, mut left) = (0, plan.total.unwrap_or(u64::MAX));
    if plan.total.is_some() {
        window.begin(0)?;
    }
    let mut start = |swarm: &mut Swarm, course: &mut Course, index, wanted: usize| -> Outcome {
        let messages = wanted.min(usize::try_from(left).unwrap_or(usize::MAX));
        left -= messages as u64;
        if messages > 0 {
            course.sent.push_back((Instant::now(), messages));
            course.start(swarm, index, out, messages)?;
        }
        Ok(())
    };
    for (index, course) in courses.iter_mut().enumerate() {
        start(swarm, course, index, plan.depth)?;
    }
    let mut ready = Vec::new();
    while plan.total.is_none_or(|total| done < total) {
        swarm.wait(&mut ready)?;
        for event in &ready {
            let Some(course) = courses.get_mut(event.index) else {
                return Err("an idle connection was spoken to".into());
            };
            if event.writable {
                course.pump(swarm, event.index, out)?;
            }
            if event.readable {
                let complete = receive(swarm, course, event.index, &mut buffer)?;
                if complete > 0 {
                    course.note_times(complete, window.has_begun().then_some(&mut times))?;
                    done += complete as u64;
                    if !plan.burst {
                        start(swarm, course, event.index, complete)?;
                    }
                }
            }
        }
        if plan.burst && done % (plan.connections * plan.depth) as u64 == 0 {
            for (index, course) in courses.iter_mut().enumerate() {
                start(swarm, course, index, plan.depth)?;
            }
        }
        if plan.total.is_none() && window.is_over(done)? {
            break;
        }
    }
    window.print(name, done, Some(&times))
}

impl Course {
    /// Takes completed messages off the list of those in flight.
    fn note_times(&mut self, complete: usize, mut times: Option<&mut Times>) -> Outcome {
        let now = Instant::now();
        let mut rest = complete;
        while rest > 0 {
            let (at, count) = self.sent.front_mut().ok_or("more echoes than messages")?;
            let taken = rest.min(*count);
            if let Some(times) = &mut times {
                times.add(now - *at, taken as u64);
            }
            *count -= taken;
            rest -= taken;
            if *count == 0 {
                self.sent.pop_front();
            }
        }
        Ok(())
    }
}
