//! The load of plain requests: every connection sends one at once, and again when all answers are there.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::measure::Window;
use crate::{Outcome, Plan};

/// Posts of so many bytes, whose answer is their number.
pub(crate) fn post(plan: &Plan) -> Outcome {
    let head = format!(
        "POST /post HTTP/1.1\r\nHost: h\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {}\r\n\r\n",
        plan.size
    );
    let request = [head.as_bytes(), &vec![b'x'; plan.size]].concat();
    run(plan, "post", &request, plan.size.to_string().as_bytes())
}

/// A file of so many bytes again and again.
pub(crate) fn get(plan: &Plan) -> Outcome {
    let request = b"GET /file.html HTTP/1.1\r\nHost: h\r\nAccept: */*\r\n\r\n";
    run(plan, "get", request, &vec![b'x'; plan.size])
}

fn run(plan: &Plan, name: &str, request: &[u8], body: &[u8]) -> Outcome {
    let end = [b"\r\n\r\n", body].concat();
    let mut streams = Vec::new();
    for _ in 0..plan.connections {
        let stream = TcpStream::connect(("127.0.0.1", plan.port))?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let mut window = Window::new(plan);
    let mut done = 0;
    if plan.total.is_some() {
        window.begin(0)?;
    }
    let mut answer = vec![0; end.len() + 4096];
    while plan.total.is_none_or(|total| done < total) {
        for stream in &mut streams {
            stream.write_all(request)?;
        }
        for stream in &mut streams {
            let mut length = 0;
            while !answer[..length].ends_with(&end) {
                let read = stream.read(&mut answer[length..])?;
                if read == 0 || !answer.starts_with(b"HTTP/1.1 200") {
                    return Err("that is not the answer".into());
                }
                length += read;
            }
            done += 1;
        }
        if plan.total.is_none() && window.is_over(done)? {
            break;
        }
    }
    window.print(name, done, None)
}
