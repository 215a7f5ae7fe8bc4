//! Requests with bodies in a simulation: what clients send, and the application that takes them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::app::body_handler::{BodyHandler, BodyNext, IncomingBody};
use crate::app::call::Call;
use crate::app::response::Response;
use crate::app::routing::Routing;
use crate::testing::network::LinkId;
use crate::words::time::Time;

use super::choices::Choices;
use super::content;
use super::losses::GivenUp;
use super::world::World;

/// A request whose body says what it has to be: whole or in pieces, with its length or in chunks.
pub(super) fn request(link: LinkId, choices: &mut Choices) -> Vec<u8> {
    let most = choices.pick(&[3_000, 3_000, 20_000]);
    let (number, size) = (choices.size_below(50), choices.size_below(most));
    let text = content::text(number, 0..size);
    let method = choices.pick(&["POST", "PUT"]);
    let expect = if choices.one_in(5) { "Expect: 100-continue\r\n" } else { "" };
    let mut request = format!(
        "{method} /body HTTP/1.1\r\nHost: h\r\nX-Link: {link}\r\nX-Number: {number}\r\n\
         X-Size: {size}\r\n{expect}"
    );
    if choices.one_in(2) {
        request.push_str(&format!("Content-Length: {size}\r\n\r\n{text}"));
        return request.into_bytes();
    }
    request.push_str("Transfer-Encoding: chunked\r\n\r\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (chunk, later) = rest.split_at(1 + choices.size_below(rest.len()));
        request.push_str(&format!("{:x};a=b\r\n{chunk}\r\n", chunk.len()));
        rest = later;
    }
    request.push_str("0\r\nA: b\r\n\r\n");
    request.into_bytes()
}

/// Takes such requests, and pauses now and then.
pub(super) fn add_routes(route: &mut Routing<'_>, world: &Rc<RefCell<World>>) {
    let of_posts = Rc::clone(world);
    route.post("/body", move |call, body| answer(&of_posts, call, body.bytes()));
    let world = Rc::clone(world);
    route.receive("PUT", "/body", move |call| {
        let (call, world) = (call.clone(), Rc::clone(&world));
        Ok(Gather { call, bytes: Vec::new(), paused_at: None, is_whole: false, world })
    });
}

struct Gather {
    call: Call,
    bytes: Vec<u8>,
    /// When it paused last.
    paused_at: Option<Time>,
    is_whole: bool,
    world: Rc<RefCell<World>>,
}

impl Drop for Gather {
    fn drop(&mut self) {
        // A hook that panics may hold it.
        let Ok(mut world) = self.world.try_borrow_mut() else { return };
        let link = self.call.header("x-link").and_then(|link| link.parse().ok());
        let (at, open) = (world.clock.get(), link.zip(self.paused_at).filter(|_| !self.is_whole));
        if let Some((link, paused_at)) = open {
            world.given_up.insert(link, GivenUp { at, paused_at });
        }
    }
}

impl BodyHandler for Gather {
    fn on_piece(&mut self, body: &mut IncomingBody<'_>, piece: &[u8]) -> BodyNext {
        self.bytes.extend_from_slice(piece);
        let choices = &mut self.world.borrow_mut().choices;
        if !choices.one_in(3) {
            return BodyNext::Continue;
        }
        let most = choices.pick(&[300, 4_000]);
        let (id, pause) = (body.id(), Duration::from_millis(1 + choices.below(most)));
        self.paused_at = Some(body.server().shared.now);
        let resumed = body.server().after(pause, move |server| {
            let _ = server.resume_body(id); // one that stays paused ends with its peer
        });
        resumed.map_or(BodyNext::Continue, |_| BodyNext::Pause)
    }

    fn on_end(&mut self, _body: &mut IncomingBody<'_>) -> Response {
        self.is_whole = true;
        answer(&self.world, &self.call, &self.bytes)
    }

    fn bytes_held(&self) -> usize {
        self.bytes.capacity()
    }
}

/// Every body that comes is the one that was sent.
fn answer(world: &Rc<RefCell<World>>, call: &Call, bytes: &[u8]) -> Response {
    let number = |name| call.header(name).and_then(|value| value.parse::<usize>().ok());
    let mut world = world.borrow_mut();
    let (Some(link), Some(kind), Some(size)) =
        (number("x-link"), number("x-number"), number("x-size"))
    else {
        return Response::new(400); // a client that sends what may be anything
    };
    if bytes != content::text(kind, 0..size).as_bytes() {
        let start = bytes.get(..30).unwrap_or(bytes).escape_ascii();
        world.violations.push(format!("link {link}: a body of {} bytes, {start}", bytes.len()));
    }
    *world.pages.entry(link).or_default() += 1;
    Response::text("taken")
}
