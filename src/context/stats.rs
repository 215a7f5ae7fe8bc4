//! The statistics of a server: what is counted, and how it reads as Prometheus text.

use std::fmt::Write;

use crate::structures::counter::Counter;
use crate::words::close::CloseCode;

/// How a figure is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up.
    Counter,
    /// Only goes up; kept in microseconds, written in seconds.
    Seconds,
}

/// One family of the text: its kind, name, help, and a line for each label with its figure.
type Family<'a> = (Kind, &'static str, &'static str, &'a [(&'static str, u64)]);

macro_rules! stats {
    ($($kind:ident $metric:literal $help:literal {
        $($(#[doc = $doc:literal])+ $field:ident $label:literal;)+
    })+) => {
        /// What a server has done so far and what it holds now: plain numbers, counted since it
        /// started (the names of gauges begin with `dialers`, or end in `open`, `held` or `expiry`).
        ///
        /// [`Routing::stats`](crate::Routing::stats) serves them; [`prometheus`](Self::prometheus)
        /// is the text that it serves.
        ///
        /// ```
        /// let text = wirewheel::Stats::default().prometheus();
        /// assert!(text.contains("# TYPE wirewheel_sessions_open gauge\nwirewheel_sessions_open 0\n"));
        /// ```
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($($(#[doc = $doc])+ pub $field: u64,)+)+
        }

        /// The same while the server counts.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $($(pub(crate) $field: Counter,)+)+
        }

        impl Counters {
            /// The numbers as of now.
            pub(crate) fn snapshot(&self) -> Stats {
                Stats { $($($field: self.$field.get(),)+)+ }
            }
        }

        impl Stats {
            /// Adds what another loop has counted.
            pub(crate) fn add(&mut self, other: &Self) {
                $($(self.$field = self.$field.wrapping_add(other.$field);)+)+
            }

            fn for_each_family(&self, mut act: impl FnMut(Family<'_>)) {
                $(act((Kind::$kind, $metric, $help, &[$(($label, self.$field)),+]));)+
            }
        }
    };
}

stats! {
    Gauge "connections_open" "Connections that are open, sessions or not." {
        /// Connections that are open, sessions or not.
        connections_open "";
    }
    Counter "connections_total" "Connections accepted." {
        /// Connections accepted.
        connections_total "";
    }
    Gauge "sessions_open" "Sessions whose on_close was not called yet." {
        /// Sessions whose `on_close` was not called yet.
        sessions_open "";
    }
    Counter "sessions_total" "Sessions opened." {
        /// Sessions opened.
        sessions_total "";
    }
    Gauge "event_streams_open" "Sessions among them that are event streams." {
        /// Sessions among them that are event streams.
        event_streams_open "";
    }
    Counter "event_streams_total" "Event streams opened." {
        /// Event streams opened.
        event_streams_total "";
    }
    Counter "sessions_closed_total" "Sessions that ended, by the code on_close was told." {
        /// Sessions that ended with 1000.
        closed_normal "code=\"1000\"";
        /// With 1001: the peer or the server goes away, or the session was idle.
        closed_going_away "code=\"1001\"";
        /// With 1002, 1003, 1007 or 1010: somebody broke the protocol.
        closed_protocol "code=\"protocol\"";
        /// With 1005: a Close without a code.
        closed_no_status "code=\"1005\"";
        /// With 1006: the connection ended without a Close.
        closed_abnormal "code=\"1006\"";
        /// With 1008: a policy, such as `max_fragments` or a rate.
        closed_policy "code=\"1008\"";
        /// With 1009: a frame or message was too big.
        closed_too_big "code=\"1009\"";
        /// With 1011: a hook failed, or no pong came in time.
        closed_internal "code=\"1011\"";
        /// With 1013: the peer did not read, or the memory budget was spent.
        closed_try_again "code=\"1013\"";
        /// With any other code, such as those of the application.
        closed_other "code=\"other\"";
    }
    Counter "tls_handshakes_total" "TLS handshakes, by outcome; all 0 without TLS." {
        /// TLS handshakes with a certificate and a signature.
        tls_handshakes_full "outcome=\"full\"";
        /// TLS handshakes by the ticket of an earlier one.
        tls_handshakes_resumed "outcome=\"resumed\"";
        /// Connections that came to nothing before TLS was agreed on.
        tls_handshakes_failed "outcome=\"failed\"";
    }
    Counter "tls_reloads_total" "Times that certificates were read again, by outcome." {
        /// Times that certificates were read again and are shown now.
        tls_reloads_done "outcome=\"done\"";
        /// Times that they could not be used, so that the old ones are shown still.
        tls_reloads_failed "outcome=\"failed\"";
    }
    Gauge "tls_certificate_expiry_seconds" "When the first certificate ends; 0 without TLS." {
        /// When the first of the server's certificates ends, in seconds since 1970; 0 without TLS.
        tls_certificate_expiry "";
    }
    Gauge "dialers" "Dialers that have not stopped, by state." {
        /// Dialers whose attempt is under way (feature `client`).
        dialers_connecting "state=\"connecting\"";
        /// Dialers that have a session.
        dialers_open "state=\"open\"";
        /// Dialers that wait for their next attempt.
        dialers_waiting "state=\"waiting\"";
    }
    Counter "dials_total" "Attempts to connect to a server." {
        /// Attempts to connect to a server (feature `client`).
        dials_total "";
    }
    Counter "dials_failed_total" "Attempts to connect that have failed." {
        /// Attempts that have failed; those that a stop has ended are not among them.
        dials_failed "";
    }
    Counter "requests_total" "Request heads taken, upgrades included." {
        /// Request heads taken, upgrades included.
        requests_total "";
    }
    Counter "requests_refused_total" "Requests that were answered with a 4xx or 5xx, by reason." {
        /// 400, 405, 505 and the like: the request was not well-formed or not for this server.
        refused_bad_request "reason=\"bad_request\"";
        /// 401 and 403: a hook or the `Origin` forbade it.
        refused_forbidden "reason=\"forbidden\"";
        /// 404.
        refused_not_found "reason=\"not_found\"";
        /// 408: the head took too long, or younger connections needed its place.
        refused_timeout "reason=\"timeout\"";
        /// 413 and 431: body or head over its limit.
        refused_too_large "reason=\"too_large\"";
        /// 426: a plain request, or another version of the protocol.
        refused_upgrade_required "reason=\"upgrade_required\"";
        /// 429: over `per_address`; and those that were hung up on for it.
        refused_address "reason=\"per_address\"";
        /// 429: over `handshake_rate`.
        refused_rate "reason=\"handshake_rate\"";
        /// 503: over `max_connections`.
        refused_full "reason=\"full\"";
        /// 503: the server stops.
        refused_stopping "reason=\"stopping\"";
        /// Any other 4xx or 5xx.
        refused_other "reason=\"other\"";
    }
    Gauge "deferred_open" "Deferred answers that the application has." {
        /// Deferred answers that the application has, whether a client still waits for them or not.
        deferred_open "";
    }
    Counter "deferred_total" "Requests whose answer was deferred, by outcome." {
        /// Deferred answers that the application gave in time.
        deferred_answered "outcome=\"answered\"";
        /// Those that it dropped: 503.
        deferred_dropped "outcome=\"dropped\"";
        /// Those that were not there within `defer_timeout`: 503.
        deferred_late "outcome=\"late\"";
        /// Those for which nobody waited any more: the client left, the grace of a stop was over, or a hook
        /// answered after all.
        deferred_cancelled "outcome=\"cancelled\"";
        /// Requests over `max_deferred`: 503.
        deferred_refused "outcome=\"refused\"";
    }
    Counter "messages_total" "Whole messages, by direction." {
        /// Messages delivered to handlers.
        messages_in "direction=\"in\"";
        /// Messages taken for sending.
        messages_out "direction=\"out\"";
    }
    Counter "bytes_total" "Bytes of the sockets, heads and frame headers included, by direction." {
        /// Bytes read from sockets.
        bytes_in "direction=\"in\"";
        /// Bytes that sockets took.
        bytes_out "direction=\"out\"";
    }
    Counter "control_frames_total" "Pings and pongs, by direction." {
        /// Pings that peers sent.
        pings_in "type=\"ping\",direction=\"in\"";
        /// The server's own pings, and the heartbeats of event streams.
        pings_out "type=\"ping\",direction=\"out\"";
        /// Pongs that matched a ping.
        pongs_in "type=\"pong\",direction=\"in\"";
    }
    Counter "message_rate_pauses_total" "Times that reading paused because of message_rate." {
        /// Times that reading paused because of `message_rate`.
        rate_pauses "";
    }
    Seconds "ping_rtt_seconds_total" "Round trips of all matched pongs; divide by their number." {
        /// The round trips of `pongs_in`, added up, in microseconds.
        rtt_micros "";
    }
    Counter "dropped_total" "What was not sent because the peer does not read, by policy." {
        /// Messages dropped because the outbox was full and keeps what it has.
        dropped_newest "policy=\"newest\"";
        /// Messages dropped from the outbox to make room for a newer one.
        dropped_oldest "policy=\"oldest\"";
        /// Pongs and pings without room in the lane of control frames.
        dropped_control "policy=\"control\"";
    }
    Counter "binary_skipped_total" "Binary messages that event streams skipped." {
        /// Binary messages that event streams skipped, which carry text; see
        /// [`base64`](crate::events::EventStreamRoute::base64).
        binary_skipped "";
    }
    Counter "lost_bytes_total" "Bytes taken for sending that were given up, by reason." {
        /// Bytes given up because the outbox was full and its policy closes (1013).
        lost_overflow "reason=\"overflow\"";
        /// Because `process_bytes` was spent.
        lost_over_budget "reason=\"over_budget\"";
        /// Because the grace of a stop was over.
        lost_stopped "reason=\"stopped\"";
        /// Because the peer stopped taking bytes, or answering pings.
        lost_stalled "reason=\"stalled\"";
        /// Because the connection broke under them.
        lost_gone "reason=\"gone\"";
        /// Because the application aborted the session, or a file ended early.
        lost_aborted "reason=\"aborted\"";
    }
    Counter "timeouts_total" "Deadlines that came to pass, by kind." {
        /// No whole request head within `handshake_timeout`.
        timeouts_handshake "kind=\"handshake\"";
        /// No pong within `timeout`.
        timeouts_ping "kind=\"ping\"";
        /// Nothing at all within `idle_timeout`.
        timeouts_idle "kind=\"idle\"";
        /// The peer took too little within `write_timeout`.
        timeouts_write "kind=\"write\"";
        /// Reading was paused for `pause_timeout`.
        timeouts_pause "kind=\"pause\"";
        /// Too little of a message that the peer began came within `write_timeout`.
        timeouts_message "kind=\"message\"";
        /// No answer to our Close within `close_timeout`.
        timeouts_close "kind=\"close\"";
        /// The peer did not hang up within `linger_timeout`.
        timeouts_linger "kind=\"linger\"";
    }
    Counter "accept_exhausted_total" "Times that accepting paused for want of descriptors or memory." {
        /// Times that accepting paused for want of descriptors or memory.
        accept_exhausted "";
    }
    Gauge "bytes_held" "Bytes in messages, outboxes, flows, names, questions and spare buffers." {
        /// Bytes in partial messages, outboxes, flows, names of sessions, open questions and spare buffers,
        /// of at most `process_bytes`.
        bytes_held "";
    }
    Counter "over_budget_total" "Connections ended because process_bytes was spent." {
        /// Connections ended because `process_bytes` was spent.
        over_budget "";
    }
    Counter "flow_messages_given_up_total" "Messages kept for sessions to come, given up for process_bytes." {
        /// Messages of flows that were kept for sessions to come, and were given up because
        /// `process_bytes` was spent; nobody who collects missed them.
        given_up "";
    }
    Counter "slow_turns_total" "Turns and events that blocked the loop for longer than slow_callback." {
        /// Turns and events that blocked the loop for longer than `slow_callback`.
        slow_turns "";
    }
    Counter "loop_turns_total" "Turns of the event loop." {
        /// Turns of the event loop.
        loop_turns "";
    }
}

impl Stats {
    /// The text that a Prometheus server reads (exposition format 0.0.4); every name begins with
    /// `wirewheel_`.
    pub fn prometheus(&self) -> String {
        let mut text = String::with_capacity(8 << 10);
        self.for_each_family(|(kind, name, help, figures)| {
            let kind_name = if kind == Kind::Gauge { "gauge" } else { "counter" };
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP wirewheel_{name} {help}");
            let _ = writeln!(text, "# TYPE wirewheel_{name} {kind_name}");
            for (label, figure) in figures {
                let _ = write!(text, "wirewheel_{name}");
                if !label.is_empty() {
                    let _ = write!(text, "{{{label}}}");
                }
                let _ = match kind {
                    Kind::Seconds => {
                        writeln!(text, " {}.{:06}", figure / 1_000_000, figure % 1_000_000)
                    }
                    Kind::Gauge | Kind::Counter => writeln!(text, " {figure}"),
                };
            }
        });
        text
    }
}

impl Counters {
    /// A session ended with this code.
    pub(crate) fn count_close(&mut self, code: CloseCode) {
        let figure = match u16::from(code) {
            1000 => &mut self.closed_normal,
            1001 => &mut self.closed_going_away,
            1002 | 1003 | 1007 | 1010 => &mut self.closed_protocol,
            1005 => &mut self.closed_no_status,
            1006 => &mut self.closed_abnormal,
            1008 => &mut self.closed_policy,
            1009 => &mut self.closed_too_big,
            1011 => &mut self.closed_internal,
            1013 => &mut self.closed_try_again,
            _ => &mut self.closed_other,
        };
        *figure += 1;
        self.sessions_open -= 1;
    }

    /// A request was answered with this status; 429 and 503 are counted where their reason is
    /// known.
    pub(crate) fn count_answer(&mut self, status: u16) {
        let figure = match status {
            ..400 | 429 | 503 => return,
            400 | 405 | 505 => &mut self.refused_bad_request,
            401 | 403 => &mut self.refused_forbidden,
            404 => &mut self.refused_not_found,
            408 => &mut self.refused_timeout,
            413 | 431 => &mut self.refused_too_large,
            426 => &mut self.refused_upgrade_required,
            _ => &mut self.refused_other,
        };
        *figure += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_text_has_each_family_once_and_each_line_once() {
        let stats = Stats { rtt_micros: 1_500_000, closed_normal: 3, ..Stats::default() };
        let text = stats.prometheus();
        assert!(text.contains("\nwirewheel_ping_rtt_seconds_total 1.500000\n"));
        assert!(text.contains("\nwirewheel_sessions_closed_total{code=\"1000\"} 3\n"));
        let mut families = HashSet::new();
        let mut names = HashSet::new();
        let mut family = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(families.insert(name), "{name} twice");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
                family = name;
            } else if !line.starts_with('#') {
                let (name, figure) = line.rsplit_once(' ').unwrap();
                assert!(figure.parse::<f64>().is_ok(), "{line}");
                assert_eq!(name.split('{').next(), Some(family), "{line}");
                assert!(names.insert(name), "{name} twice");
            }
        }
        assert!(names.len() > 40, "{} figures", names.len());
    }

    #[test]
    fn every_code_and_status_is_counted_once() {
        for code in [1000, 1001, 1002, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4999] {
            let mut counters = Counters::default();
            counters.sessions_open += 1;
            counters.count_close(CloseCode::new(code));
            let stats = counters.snapshot();
            let mut closed = 0;
            stats.for_each_family(|(_, name, _, figures)| {
                if name == "sessions_closed_total" {
                    closed = figures.iter().map(|(_, figure)| figure).sum();
                }
            });
            assert_eq!((closed, stats.sessions_open), (1, 0), "{code}");
        }
        let mut counters = Counters::default();
        [200, 304, 429, 503].into_iter().for_each(|status| counters.count_answer(status));
        assert_eq!(counters.snapshot(), Stats::default());
        counters.count_answer(418);
        assert_eq!(counters.refused_other.get(), 1);
    }
}
