//! The guide: how a server is written with this crate, a subject a page, every snippet a test.
//!
//! | page | what it answers |
//! |---|---|
//! | [`life_of_a_session`] | which hook is called when, and how a session ends |
//! | [`backpressure`] | what happens to messages for a peer that does not read |
//! | [`bodies`] | request bodies, whole and in pieces; answers that are made while they are sent |
//! | [`deferred_answers`] | answers that come later, and pages that reach the server |
//! | [`broadcast`] | one message for many sessions |
//! | [`pieces`] | messages that are too large to be held |
//! | [`event_streams`] | server-sent events, for pages that only listen |
//! | [`timers`] | doing something later, or again and again |
#![cfg_attr(
    feature = "client",
    doc = " | [`dialling`] | sessions that dial out, and what an outage does to them |"
)]
//! | [`limits_and_memory`] | how much memory all of it takes at most |
#![cfg_attr(feature = "deflate", doc = " | [`deflate`] | compression, and what it costs |")]
//! | [`errors_and_close_codes`] | who is told what when something fails |
//! | [`serving_pages`] | folders, conditions and ranges, CORS, headers and error pages |
//! | [`threads`] | talking to the server from another thread |
//! | [`loops`] | more than one core |
//! | [`embedding`] | serial ports, pipes and sockets on the same loop; the server inside a program |
//! | [`testing_handlers`] | tests without sockets and waiting, and with them |
//! | [`deploying`] | static binaries, systemd, OpenWrt, logging |
//! | [`options`] | every option, its default, and where it is set |
//! | [`proxies`] | nginx and HAProxy in front, for TLS |
#![cfg_attr(
    feature = "tls-client-auth",
    doc = " | [`tls`] | certificates on the box: renewals, clients, memory; or a proxy |"
)]
//! | [`fleet`] | more than one box: flows over a broker, what is lost when, a million subscribers on paper |
//! | [`security`] | origins, tokens, proxies, hostile peers |
#![cfg_attr(
    feature = "deflate",
    doc = " | [`from_ktor`] | each thing on Ktor's pages, and the line that does it here |"
)]
//! | [`from_other_crates`] | the same for ws-rs, tokio-tungstenite and tungstenite |
//! | [`comparison`] | speed and memory beside other servers |
//!
//! It exists in the documentation alone; nothing of it is compiled into a program.

#[doc = include_str!("backpressure.md")]
pub mod backpressure {}

#[doc = include_str!("bodies.md")]
pub mod bodies {}

#[doc = include_str!("broadcast.md")]
pub mod broadcast {}

#[doc = include_str!("comparison.md")]
pub mod comparison {}

#[cfg(feature = "deflate")]
#[doc = include_str!("deflate.md")]
pub mod deflate {}

#[doc = include_str!("deferred_answers.md")]
pub mod deferred_answers {}

#[doc = include_str!("deploying.md")]
pub mod deploying {}

#[cfg(feature = "client")]
#[doc = include_str!("dialling.md")]
pub mod dialling {}

#[doc = include_str!("embedding.md")]
pub mod embedding {}

#[doc = include_str!("errors_and_close_codes.md")]
pub mod errors_and_close_codes {}

#[doc = include_str!("event_streams.md")]
pub mod event_streams {}

#[doc = include_str!("fleet.md")]
pub mod fleet {}

// Its page on values has snippets for the feature `json`.
#[cfg(all(feature = "deflate", any(not(doctest), feature = "json")))]
#[doc = include_str!("from_ktor.md")]
pub mod from_ktor {}

#[doc = include_str!("from_other_crates.md")]
pub mod from_other_crates {}

#[doc = include_str!("life_of_a_session.md")]
pub mod life_of_a_session {}

#[doc = include_str!("limits_and_memory.md")]
pub mod limits_and_memory {}

#[doc = include_str!("loops.md")]
pub mod loops {}

#[doc = include_str!("options.md")]
pub mod options {}

#[doc = include_str!("pieces.md")]
pub mod pieces {}

#[doc = include_str!("proxies.md")]
pub mod proxies {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("serving_pages.md")]
pub mod serving_pages {}

// Its page on networks has a snippet for the feature `client`.
#[cfg(any(not(doctest), feature = "client"))]
#[doc = include_str!("testing_handlers.md")]
pub mod testing_handlers {}

#[doc = include_str!("threads.md")]
pub mod threads {}

// Its page has certificates of clients, and sessions that are dialled.
#[cfg(all(feature = "tls-client-auth", feature = "client"))]
#[doc = include_str!("tls.md")]
pub mod tls {}

#[doc = include_str!("timers.md")]
pub mod timers {}
