//! Owns the broadcast load: the first connection publishes, all receive, itself included.

use crate::echo::Course;
use crate::measure::Window;
use crate::swarm::Swarm;
use crate::traffic::{READ_BYTES, Stream, parse, payload};
use crate::{Outcome, Plan};

pub(crate) fn run(plan: &Plan) -> Outcome {
    let out = Stream::outgoing(plan.size, true);
    let mut swarm = Swarm::new(plan, plan.deflate)?;
    swarm.open(plan.connections)?;
    let mut courses: Vec<Course> = (0..plan.connections).map(|_| Course::default()).collect();
    let mut buffer = vec![0; READ_BYTES];
    let mut ready = Vec::new();

    // The first message shows what all the others have to look like.
    courses[0].start(&mut swarm, 0, &out, 1)?;
    let frame = first_frame(&mut swarm, plan)?;
    let expected = Stream::expecting(&frame);

    let data = payload(plan.size);
    let subscribers = plan.connections as u64;
    let mut window = Window::new(plan);
    let (mut published, mut delivered) = (1, 1);
    let most = plan.total.unwrap_or(u64::MAX);
    if plan.total.is_some() {
        window.begin(0)?;
    }
    while delivered / subscribers < most {
        let wanted = (delivered / subscribers + plan.depth as u64).min(most);
        if wanted > published {
            let messages = usize::try_from(wanted - published)?;
            courses[0].start(&mut swarm, 0, &out, messages)?;
            published = wanted;
        }
        swarm.wait(&mut ready)?;
        for event in &ready {
            let course = &mut courses[event.index];
            if event.writable {
                course.pump(&mut swarm, event.index, &out)?;
            }
            if event.readable && plan.events && event.index > 0 {
                delivered += swarm.receive_events(event.index, &data, &mut buffer)? as u64;
            } else if event.readable {
                delivered +=
                    course.receive(&mut swarm, event.index, &expected, &mut buffer)? as u64;
            }
        }
        if plan.total.is_none() && window.is_over(delivered)? {
            break;
        }
    }
    window.print("broadcast", delivered, None)
}

/// Reads exactly one frame on the first connection and checks what it says.
fn first_frame(swarm: &mut Swarm, plan: &Plan) -> Outcome<Vec<u8>> {
    let mut frame = Vec::new();
    let mut ready = Vec::new();
    loop {
        let wanted = match parse(&frame) {
            Some((header, length)) if header + length == frame.len() => break,
            Some((header, length)) => header + length - frame.len(),
            None => 1,
        };
        let mut piece = vec![0; wanted];
        let n = swarm.receive(0, &mut piece)?;
        frame.extend_from_slice(&piece[..n]);
        if n == 0 {
            swarm.wait(&mut ready)?;
        }
    }
    let (header, _) = parse(&frame).ok_or("no header")?;
    let content = match frame[0] {
        0xc1 if plan.deflate => {
            let tail = [&frame[header..], &[0, 0, 0xff, 0xff]].concat();
            inflate(&tail)?
        }
        0x81 if !plan.deflate => frame[header..].to_vec(),
        first => return Err(format!("a frame that begins with {first:#04x}").into()),
    };
    if content != payload(plan.size) {
        return Err("other content than was published".into());
    }
    Ok(frame)
}

/// RFC 7692 section 7.2.2: the message ends without a final block, so the end of input is its end.
fn inflate(bytes: &[u8]) -> Outcome<Vec<u8>> {
    use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
    let mut out = vec![0; 1 << 20];
    let flags = inflate_flags::TINFL_FLAG_HAS_MORE_INPUT
        | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (_, used, written) = decompress(&mut DecompressorOxide::new(), bytes, &mut out, 0, flags);
    if used < bytes.len() {
        return Err("not deflated as announced".into());
    }
    out.truncate(written);
    Ok(out)
}
