//! The load of posts: every connection sends a body at once, and again when all answers are there.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::measure::Window;
use crate::{Outcome, Plan};

pub(crate) fn run(plan: &Plan) -> Outcome {
    let head = format!(
        "POST /post HTTP/1.1\r\nHost: h\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: {}\r\n\r\n",
        plan.size
    );
    let request = [head.as_bytes(), &vec![b'x'; plan.size]].concat();
    let end = format!("\r\n\r\n{}", plan.size);
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
    let mut answer = [0; 4096];
    while plan.total.is_none_or(|total| done < total) {
        for stream in &mut streams {
            stream.write_all(&request)?;
        }
        for stream in &mut streams {
            let mut length = 0;
            while !answer[..length].ends_with(end.as_bytes()) {
                let read = stream.read(&mut answer[length..])?;
                if read == 0 || !answer.starts_with(b"HTTP/1.1 200") {
                    return Err("that is no answer to a post".into());
                }
                length += read;
            }
            done += 1;
        }
        if plan.total.is_none() && window.is_over(done)? {
            break;
        }
    }
    window.print("post", done, None)
}
