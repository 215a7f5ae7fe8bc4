// What Chromium makes of served files: a sound that is wound on, a reload, and what the pages of another origin
// may read. Part of `.ci/browser`.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { hub } from "./origins.mjs";

const SECONDS = 600;
const RATE = 44_100;

/** Silence that is long enough not to be fetched at once: 16 bits, two channels, 106 MB. */
function wave() {
  const size = SECONDS * RATE * 4, file = Buffer.alloc(44 + size);
  file.write("RIFF", 0);
  file.writeUInt32LE(36 + size, 4);
  file.write("WAVEfmt ", 8);
  file.writeUInt32LE(16, 16);
  file.writeUInt16LE(1, 20); // PCM
  file.writeUInt16LE(2, 22);
  file.writeUInt32LE(RATE, 24);
  file.writeUInt32LE(RATE * 4, 28);
  file.writeUInt16LE(4, 32);
  file.writeUInt16LE(16, 34);
  file.write("data", 36);
  file.writeUInt32LE(size, 40);
  return file;
}

/** A sound at its ninth minute, and a reload that fetches nothing again. */
export async function pages(browser) {
  const folder = mkdtempSync(`${tmpdir()}/wirewheel-pages-`);
  writeFileSync(`${folder}/index.html`, `<!doctype html><link rel=icon href="data:,"><script src=app.js></script>
    <audio preload=metadata src=sound.wav></audio>`);
  writeFileSync(`${folder}/app.js`, "window.loaded = true;");
  writeFileSync(`${folder}/sound.wav`, wave());
  const server = await hub(folder);
  try {
    const page = await (await browser.newContext()).newPage();
    const answers = [];
    page.on("response", answer => answers.push(answer));
    await page.goto(`http://127.0.0.1:${server.port}/`);
    const time = await page.evaluate(seconds => new Promise((done, failed) => {
      const audio = document.querySelector("audio");
      const seek = () => { audio.currentTime = seconds; };
      audio.onseeked = () => done([audio.currentTime, audio.duration]);
      audio.onerror = () => failed(new Error(audio.error.message));
      if (audio.readyState > 0) seek(); else audio.onloadedmetadata = seek;
    }), SECONDS * 0.9);
    assert.deepEqual(time, [SECONDS * 0.9, SECONDS]);
    const parts = answers.filter(answer => answer.url().endsWith("sound.wav"));
    const ranges = await Promise.all(parts.map(answer => answer.headerValue("content-range")));
    assert.ok(parts.every(answer => answer.status() === 206), `${parts.map(answer => answer.status())}`);
    const starts = ranges.map(range => Number(range.match(/^bytes (\d+)-/)[1]));
    assert.ok(starts.some(start => start > SECONDS * RATE * 4 / 2), `the end was asked for: ${ranges}`);

    await page.reload();
    assert.ok(await page.evaluate(() => window.loaded));
    const statuses = answers.filter(answer => answer.url().endsWith("app.js")).map(answer => answer.status());
    assert.deepEqual(statuses, [200, 304]);
  } finally {
    await server.stop();
    rmSync(folder, { recursive: true });
  }
}

/** The lamp is switched in one window and seen in another; a path without a page has one. */
export async function lamp(browser, open, url) {
  const [one, other] = [await open(browser, url), await open(browser, url)];
  for (const page of [one, other]) await page.locator("#lamp.off").waitFor();
  await one.click("#switch");
  for (const page of [one, other]) await page.locator("#lamp.on").waitFor();
  await one.click("#switch");
  await other.locator("#lamp.off").waitFor();
  const lost = await one.goto(`${url}missing`);
  assert.equal(lost.status(), 404);
  assert.match(await one.textContent("h1"), /nothing here/);
}

/** Figures are read by the page of an origin that is listed, behind a preflight, and by no other. */
export async function readAcross(browser, url) {
  const folder = mkdtempSync(`${tmpdir()}/wirewheel-across-`);
  writeFileSync(`${folder}/index.html`, `<!doctype html><link rel=icon href="data:,"><title>dashboard</title>`);
  const server = await hub(folder);
  const read = async host => {
    const page = await (await browser.newContext()).newPage();
    await page.goto(`http://${host}:${server.port}/`);
    return page.evaluate(url => fetch(url, { headers: { Authorization: "Bearer secret" } })
      .then(answer => answer.json()).catch(error => error.name), `${url}api/lamp`);
  };
  try {
    assert.deepEqual(await read("localhost"), { lamp: "off" });
    assert.equal(await read("127.0.0.1"), "TypeError");
  } finally {
    await server.stop();
    rmSync(folder, { recursive: true });
  }
}
