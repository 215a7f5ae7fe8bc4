// What Chromium sends as a form with a file: 5 MB as `multipart/form-data`, whose progress every open page sees.
// Part of `.ci/browser`.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";

const BYTES = 5_000_000;

function hash(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Bytes that no boundary and no line end are in by design, and all values by chance. */
function noise() {
  const bytes = Buffer.alloc(BYTES);
  for (let at = 0, state = 1; at < BYTES; at++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    bytes[at] = state >>> 16;
  }
  return bytes;
}

/** What the progress bar of a page shows from now on. */
function watch(page) {
  return page.evaluate(() => {
    const bar = document.getElementById("bar"), socket = new WebSocket(`ws://${location.host}/progress`);
    window.seen = [];
    socket.onmessage = event => window.seen.push(event.data);
    return new Promise(done => { socket.onopen = () => done(bar.value); });
  });
}

/** A form is sent in one window; both show how far it has come, and the file is what was sent. */
export async function uploads(browser, open, start) {
  const folder = mkdtempSync(`${tmpdir()}/wirewheel-uploads-`), stored = `${folder}/stored`;
  const bytes = noise();
  writeFileSync(`${folder}/picture.raw`, bytes);
  const program = await start(stored);
  try {
    const [sender, watcher] = [await open(browser, program.url), await open(browser, program.url)];
    for (const page of [sender, watcher]) assert.equal(await watch(page), 0);
    await sender.setInputFiles("input[type=file]", `${folder}/picture.raw`);
    await sender.click("#upload button");
    for (const page of [sender, watcher]) {
      await page.locator("#log").filter({ hasText: `upload-picture.raw: ${BYTES} bytes` }).waitFor();
      // The socket of this test may be told a moment later than the page's own.
      await page.waitForFunction(() => window.seen.some(line => line.startsWith("done")));
      const lines = await page.evaluate(() => window.seen);
      const steps = lines.filter(line => /^\d+ %$/.test(line)).map(line => parseInt(line, 10));
      assert.ok(steps.length >= 10 && steps.at(-1) >= 99, `progress: ${steps}`);
      assert.deepEqual(steps, [...steps].sort((a, b) => a - b));
      assert.ok(await page.evaluate(() => document.getElementById("bar").value) >= 99);
    }
    assert.deepEqual(readdirSync(stored), ["upload-picture.raw"]);
    assert.equal(hash(readFileSync(`${stored}/upload-picture.raw`)), hash(bytes));

    // Broken off by its sender: nothing is left of it, and all see that.
    const breakOff = () => sender.evaluate(size => new Promise(done => {
      const form = new FormData(), abort = new AbortController();
      form.append("file", new Blob([new Uint8Array(size)]), "half.raw");
      const sent = fetch("/upload", { method: "POST", body: form, signal: abort.signal });
      const socket = new WebSocket(`ws://${location.host}/progress`);
      socket.onmessage = () => abort.abort(); // at the first that has come
      sent.then(() => done(false), () => done(true)).then(() => socket.close());
    }), 60_000_000);
    // A page that is kept from its turn breaks off what has arrived by then.
    for (let times = 1; !await breakOff(); times++) {
      assert.ok(times < 10, "it is never broken off");
      rmSync(`${stored}/upload-half.raw`);
    }
    await watcher.locator("#log").filter({ hasText: "broken off" }).waitFor();
    assert.deepEqual(readdirSync(stored), ["upload-picture.raw"]);
  } finally {
    await program.stop();
    rmSync(folder, { recursive: true });
  }
}
