//! An upload with its progress, and commands by POST: a form sends a file, every open page sees how far it
//! has come.
//!
//! Run it with `cargo run --release --example upload` and open <http://127.0.0.1:8080/>, or try
//! - `curl -F file=@Cargo.lock http://127.0.0.1:8080/upload`
//! - `curl -X POST http://127.0.0.1:8080/commands/blink -d times=3`
//! - `curl http://127.0.0.1:8080/files.csv`
//!
//! The second argument is the folder for what is uploaded; without it, one is made in the system's folder for
//! temporary files.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use wirewheel::body::{
    BodyError, BodyNext, IncomingBody, MultipartHandler, MultipartLimits, Part, multipart,
};
use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
use wirewheel::{Application, Call, Response, Server, WebSockets, on_connect};

/// The most bytes of an upload.
const MAX_UPLOAD: u64 = 64 << 20;

/// One form that is coming in.
struct Upload {
    folder: Rc<Path>,
    progress: SharedFlow,
    /// Of the file that was begun last.
    number: Rc<Cell<u32>>,
    /// The file of the present part, its name for those who watch, and where it is written until it is whole.
    file: Option<(File, String, PathBuf)>,
    told_percent: u64,
    sizes: BTreeMap<String, u64>,
}

impl Upload {
    fn tell(&self, what: &str) {
        let _ = self.progress.emit(what); // who does not read misses a line
    }

    fn fail(&self, error: &std::io::Error) -> BodyNext {
        BodyNext::Answer(Response::text(format!("not stored: {error}\n")).status(507))
    }
}

/// A name for the server's own file: of the client's, only what can do no harm.
fn safe_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let is_safe = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
    let kept: String = last.chars().filter(is_safe).take(100).collect();
    format!("upload-{}", kept.trim_start_matches('.'))
}

impl MultipartHandler for Upload {
    fn on_part(&mut self, _body: &mut IncomingBody<'_>, part: &Part) -> BodyNext {
        let Some(name) = part.file_name().filter(|name| !name.is_empty()) else {
            return BodyNext::Continue; // a field of the form, or no file was chosen
        };
        let name = safe_name(name);
        self.number.set(self.number.get() + 1); // two may send files of one name at once
        let path = self.folder.join(format!("{name}.{}.part", self.number.get()));
        match File::create(&path) {
            Ok(file) => self.file = Some((file, name, path)),
            Err(error) => return self.fail(&error),
        }
        BodyNext::Continue
    }

    fn on_piece(&mut self, body: &mut IncomingBody<'_>, piece: &[u8]) -> BodyNext {
        let Some((file, name, _)) = &mut self.file else { return BodyNext::Continue };
        if let Err(error) = file.write_all(piece) {
            return self.fail(&error);
        }
        *self.sizes.entry(name.clone()).or_default() += piece.len() as u64;
        let percent = body.expected().map_or(0, |all| 100 * body.received() / all.max(1));
        if percent > self.told_percent {
            self.told_percent = percent;
            self.tell(&format!("{percent} %"));
        }
        BodyNext::Continue
    }

    fn on_part_end(&mut self, _body: &mut IncomingBody<'_>) -> BodyNext {
        if let Some((_, name, path)) = &self.file {
            // Under its name only once it is whole; what cannot be renamed is removed by `drop`.
            if let Err(error) = fs::rename(path, self.folder.join(name)) {
                return self.fail(&error);
            }
            self.file = None;
        }
        BodyNext::Continue
    }

    fn on_end(&mut self, _body: &mut IncomingBody<'_>) -> Response {
        let lines: String =
            self.sizes.iter().map(|(name, size)| format!("{name}: {size} bytes\n")).collect();
        self.tell(&format!("done\n{lines}"));
        Response::text(lines).status(201)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // It did not come whole.
        if let Some((_, _, path)) = &self.file {
            let _ = fs::remove_file(path);
            self.tell("broken off");
        }
    }
}

/// The files as a table, made while it is sent.
fn list(folder: &Path) -> Response {
    let Ok(mut files) = fs::read_dir(folder) else { return Response::new(500) };
    let table = Response::stream(move |piece| {
        for file in files.by_ref().take(100).flatten() {
            let size = file.metadata().map_or(0, |data| data.len());
            writeln!(piece, "{},{size}", file.file_name().to_string_lossy())?;
        }
        Ok(())
    });
    table.header("Content-Type", "text/csv")
}

fn blink(call: &Call, body: wirewheel::body::Body<'_>) -> Result<Response, BodyError> {
    let form = body.form()?;
    let times = form.get("times").and_then(|times| times.parse::<u32>().ok());
    let Some(times) = times.filter(|times| (1..=10).contains(times)) else {
        return Ok(Response::text("times has to be 1 to 10\n").status(400));
    };
    println!("{} has the LED blink {times} times", call.client_addr());
    Ok(Response::new(204))
}

fn module(app: &mut Application, folder: Rc<Path>) {
    let newest = FlowOptions::new().extra_buffer(16).on_buffer_overflow(BufferOverflow::DropOldest);
    let progress: SharedFlow = app.flow(newest);
    app.install(WebSockets::new());
    app.routing(|route| {
        route.get("/", |_call| Response::html(include_str!("upload.html")));
        let watched = progress.clone();
        route.web_socket("/progress", move |_call: &Call| {
            let watched = watched.clone();
            on_connect(move |session, _call| session.collect(&watched))
        });
        route.post("/commands/blink", blink);
        let (listed, number) = (Rc::clone(&folder), Rc::<Cell<u32>>::default());
        route.get("/files.csv", move |_call| list(&listed));
        let upload = route.receive("POST", "/upload", move |call| {
            let (folder, progress) = (Rc::clone(&folder), progress.clone());
            let (number, file) = (Rc::clone(&number), None);
            let (told_percent, sizes) = (0, BTreeMap::new());
            let upload = Upload { folder, progress, number, file, told_percent, sizes };
            multipart(call, MultipartLimits::new().parts(10), upload)
        });
        upload.max_body_size(MAX_UPLOAD);
    });
}

fn main() -> wirewheel::Result<()> {
    env_logger::init();
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".into());
    let folder = arguments
        .next()
        .map_or_else(|| std::env::temp_dir().join("wirewheel-upload"), PathBuf::from);
    if let Err(error) = fs::create_dir_all(&folder) {
        println!("{}: {error}", folder.display());
        std::process::exit(1);
    }
    let server =
        Server::bind(address.as_str(), move |app: &mut Application| module(app, folder.into()))?;
    println!("listening on http://{}", server.local_addr());
    let _ = std::io::stdout().flush();
    server.run()
}
