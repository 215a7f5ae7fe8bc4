// Drives the pages of the examples as somebody at a browser would. Started by `.ci/browser`.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { overRestarts } from "./events.mjs";
import { freePort, origins, overTls } from "./origins.mjs";
import { lamp, pages, readAcross } from "./pages.mjs";
import { uploads } from "./uploads.mjs";

const { BROWSER, PLAYWRIGHT, EXAMPLES, SCREENSHOTS } = process.env;
const { chromium } = createRequire(import.meta.url)(resolve(PLAYWRIGHT));
/** The longest that anything may take, in milliseconds. */
const PATIENCE = 60_000;
const PHONE = { width: 375, height: 667 };
const SMALLEST_PHONE = { width: 320, height: 568 };
const DESK = { width: 1280, height: 800 };

/** An example that runs, at a free port unless one is given. */
class Program {
  static running = new Set();

  static async start(name, address = "127.0.0.1:0", ...more) {
    const program = new Program();
    program.child = spawn(`${EXAMPLES}/${name}`, [address, ...more], { stdio: ["ignore", "pipe", "inherit"] });
    Program.running.add(program);
    program.ended = new Promise(done => program.child.on("close", done));
    const lines = createInterface({ input: program.child.stdout });
    program.address = await new Promise((found, failed) => {
      lines.on("line", line => line.startsWith("listening on http://") && found(line.slice(20)));
      program.ended.then(code => failed(new Error(`${name} ended with ${code} before it listened`)));
    });
    return program;
  }

  get url() {
    return `http://${this.address}/`;
  }

  async stop() {
    this.child.kill("SIGTERM");
    Program.running.delete(this);
    assert.equal(await this.ended, 0, "exit code");
  }
}

/** Where a program is to listen once more when it was stopped: nobody is given that port in between. */
async function place() {
  return `127.0.0.1:${await freePort()}`;
}

/** What pages did that they must not do: a script that failed, a request to elsewhere. */
const faults = [];

/** A page in a window of its own. */
async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: DESK, colorScheme: "light", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on("pageerror", error => faults.push(error));
  page.on("request", request => {
    if (new URL(request.url()).origin !== new URL(url).origin) faults.push(`asks elsewhere: ${request.url()}`);
  });
  await page.goto(url);
  return page;
}

function shot(page, name) {
  return page.screenshot({ path: `${SCREENSHOTS}/${name}.png` });
}

/** Waits until an element's text fits. */
async function expectText(page, selector, wanted) {
  const fits = wanted instanceof RegExp ? wanted : new RegExp(wanted.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  await page.locator(selector).filter({ hasText: fits }).first().waitFor({ state: "attached" });
}

/** What an on-screen control must be, on the smallest phone too: large enough for a finger, within the
 *  screen, named. */
async function expectUsable(page) {
  const size = page.viewportSize();
  for (const viewport of [SMALLEST_PHONE, size]) {
    await page.setViewportSize(viewport);
    await expectFits(page);
  }
}

async function expectFits(page) {
  const found = await page.evaluate(() => {
    const visible = e => e.getClientRects().length > 0;
    const controls = [...document.querySelectorAll("button, input, select")].filter(visible);
    const faults = controls.map(e => {
      const { width, height, left, right } = e.getBoundingClientRect();
      const named = e.labels?.length || e.ariaLabel || e.textContent.trim();
      const large = width >= 44 && height >= 44, within = left >= 0 && right <= innerWidth;
      return large && within && named ? null : `${e.id || e.tagName}: ${width}x${height}, ${left} to ${right}, named ${named}`;
    });
    return { count: controls.length, faults: faults.filter(Boolean), wide: document.documentElement.scrollWidth > innerWidth };
  });
  assert.deepEqual(found.faults, []);
  assert.ok(found.count > 0 && !found.wide, "nothing sticks out to the side");
}

async function echo(browser) {
  const program = await Program.start("echo", await place());
  const page = await open(browser, program.url, { viewport: PHONE, hasTouch: true, isMobile: true });
  await expectText(page, "#state.open", "connected");
  await expectText(page, "#log .connect", "to /echo");
  await expectText(page, "#log .message", "Please enter your name");
  await page.fill("#text", "JetBrains");
  await page.tap("#send");
  await expectText(page, "#log .sent", "JetBrains");
  await expectText(page, "#log .message", "Hi, JetBrains!");
  await expectUsable(page);
  await page.fill("#text", "bye");
  await page.press("#text", "Enter");
  await expectText(page, "#log .close", "1000 Client said BYE");
  await expectText(page, "#state", "closed");
  assert.ok(await page.isDisabled("#send"), "nothing can be sent on a closed connection");
  await page.tap("#toggle");
  await expectText(page, "#state.open", "connected");

  // Without a server the page says so and keeps trying; with one it is there again by itself.
  await program.stop();
  await expectText(page, "#log .close", "1001");
  await expectText(page, "#log .error", "the connection failed");
  await expectText(page, "#state.wait", "offline");
  await shot(page, "echo-phone-light");
  const again = await Program.start("echo", program.address);
  await expectText(page, "#state.open", "connected");
  await page.locator("#log .message", { hasText: "Please enter your name" }).nth(2).waitFor({ state: "attached" });
  assert.equal(await page.locator("#log .message", { hasText: "Please enter your name" }).count(), 3);

  const desk = await open(browser, again.url, { colorScheme: "dark" });
  await expectText(desk, "#log .message", "Please enter your name");
  await desk.fill("#text", "Ada");
  await desk.press("#text", "Enter");
  await expectText(desk, "#log .message", "Hi, Ada!");
  await shot(desk, "echo-desk-dark");
  await again.stop();
}

async function join(page, name, room) {
  await page.fill("#name", name);
  await page.fill("#room", room);
  await page.click("#join button");
  await expectText(page, "#state.open", "connected");
}

async function say(page, text) {
  await page.fill("#text", text);
  await page.press("#text", "Enter");
}

const lines = page => page.locator("#log li").allInnerTexts();

async function chat(browser) {
  const program = await Program.start("chat", await place());
  const anna = await open(browser, program.url, { viewport: PHONE, hasTouch: true, isMobile: true, colorScheme: "dark" });
  await expectUsable(anna);
  await shot(anna, "chat-join-phone-dark");
  await join(anna, "Anna", "kitchen");
  await expectText(anna, "#log .notice", "You are connected to WebSocket!");
  const ben = await open(browser, program.url + "#kitchen");
  await join(ben, "Ben", "kitchen");
  await expectText(anna, "#log .notice", "Ben came");
  await expectText(anna, "#here", "2 here");
  await say(anna, "Is there coffee?");
  await expectText(ben, "#log .other", "Is there coffee?");
  await say(ben, "Just made some. <b>Hot</b> & fresh: help yourself");
  await expectText(anna, "#log .other", "Just made some. <b>Hot</b> & fresh: help yourself");
  await say(anna, "On my way");
  for (const page of [anna, ben]) {
    await expectText(page, "#log", "On my way");
    const said = (await lines(page)).filter(line => line.includes("\n"));
    assert.deepEqual(said, [
      "Anna\nIs there coffee?",
      "Ben\nJust made some. <b>Hot</b> & fresh: help yourself",
      "Anna\nOn my way",
    ]);
  }
  assert.equal(await anna.locator("#log .mine").count(), 2);
  await expectUsable(anna);
  await shot(anna, "chat-phone-dark");
  await shot(ben, "chat-desk-light");

  // A reload keeps name and room, and what was said is sent again.
  await ben.reload();
  await expectText(ben, "#log .mine", "Just made some");
  await expectText(ben, "#title", "kitchen");

  // A name that will not do is told, and not tried again.
  const star = await open(browser, program.url);
  await star.evaluate(() => join("*", "kitchen"));
  await expectText(star, "#wrong", "no colon and no star");
  assert.ok(await star.isVisible("#join"));
  await star.context().close();

  // The server is started anew: both are there again by themselves and talk on.
  await program.stop();
  await expectText(anna, "#state.wait", "offline");
  assert.ok(await anna.isDisabled("#send"));
  await shot(anna, "chat-lost-phone-dark");
  const again = await Program.start("chat", program.address);
  await expectText(anna, "#here", "2 here");
  await expectText(ben, "#here", "2 here");
  await say(ben, "That was quick");
  await expectText(anna, "#log .other", "That was quick");
  await anna.tap("#leave");
  await expectText(ben, "#log .notice", "Anna left");
  assert.ok(await anna.isVisible("#join"));
  await again.stop();
}

const picture = (page, id) => page.evaluate(id => document.getElementById(id).toDataURL(), id);

/** Waits until a canvas shows something else than before, and says what. */
async function nextPicture(page, id, before) {
  await page.waitForFunction(([id, before]) => document.getElementById(id).toDataURL() !== before, [id, before]);
  return picture(page, id);
}

/** How many pixels of a canvas have the colour of the first line. */
function inkOfLine(page, id) {
  return page.evaluate(id => {
    const canvas = document.getElementById(id), pen = canvas.getContext("2d");
    const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
    pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--a");
    const colour = pen.fillStyle.match(/[0-9a-f]{2}/g).map(part => parseInt(part, 16));
    let found = 0;
    for (let i = 0; i < data.length; i += 4) found += colour.every((part, n) => data[i + n] === part);
    return found;
  }, id);
}

async function expectInk(page, id) {
  for (const begun = Date.now(); (await inkOfLine(page, id)) === 0;) {
    assert.ok(Date.now() - begun < PATIENCE, `${id} is drawn in the present colours`);
    await page.evaluate(() => new Promise(requestAnimationFrame));
  }
}

async function telemetry(browser) {
  const program = await Program.start("telemetry", await place());
  const desk = await open(browser, program.url, { colorScheme: "dark" });
  const phone = await open(browser, program.url, { viewport: PHONE, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
  await expectText(desk, "#state.open", "connected");
  await expectText(desk, "#one", /^\d+\.\d\d$/);
  await expectText(desk, "#received", /B\/s$/);
  await expectInk(desk, "load"); // a line has two points, and the first picture may have one
  let shown = await picture(desk, "load");
  const early = await inkOfLine(desk, "load");
  for (let second = 0; second < 3; second++) shown = await nextPicture(desk, "load", shown);
  const late = await inkOfLine(desk, "load");
  assert.ok(early > 0 && late > early, `the line grows: ${early}, then ${late} pixels`);
  await phone.selectOption("#interface", "lo");
  await expectText(phone, "#sent", /B\/s$/);
  await expectUsable(phone);
  await program.stop();
  await expectText(desk, "#state.wait", "offline");
  const again = await Program.start("telemetry", program.address);
  await expectText(desk, "#state.open", "connected");
  await nextPicture(desk, "load", shown);
  await shot(desk, "telemetry-desk-dark");
  await expectText(phone, "#state.open", "connected");
  await shot(phone, "telemetry-phone-light");
  // The colours follow the system's while the page is open.
  await phone.emulateMedia({ colorScheme: "dark" });
  await expectInk(phone, "load");
  await again.stop();
}

async function deflate(browser) {
  const program = await Program.start("deflate");
  const page = await open(browser, program.url); // 426, which is a page of this server too
  const told = await page.evaluate(url => new Promise((done, failed) => {
    const text = "compress me, ".repeat(1000), socket = new WebSocket(url);
    socket.onopen = () => socket.send(text);
    socket.onmessage = event => done({ extensions: socket.extensions, same: event.data === text });
    socket.onerror = () => failed(new Error("no connection"));
  }), program.url.replace("http", "ws"));
  assert.deepEqual(told, {
    extensions: "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    same: true,
  });
  await program.stop();
}

process.on("exit", () => Program.running.forEach(program => program.child.kill("SIGKILL")));
mkdirSync(SCREENSHOTS, { recursive: true });
// A new profile folder each time; nothing but the examples is to be asked for anything.
const launch = (...more) => chromium.launch({
  executablePath: BROWSER,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", ...more],
});
const browser = await launch();
async function foreignPages() {
  await origins(launch, open);
}
async function files() {
  await pages(browser);
}
async function site() {
  const program = await Program.start("site");
  await lamp(browser, open, program.url);
  await readAcross(browser, program.url);
  await program.stop();
}
async function events(browser) {
  await overRestarts(browser, { Program, place, open, expectText, expectUsable, shot, PHONE });
}
async function upload(browser) {
  await uploads(browser, open, folder => Program.start("upload", undefined, folder));
}
async function secured() {
  await overTls(browser, open);
}
try {
  const all = [echo, chat, telemetry, events, deflate, files, site, upload, secured, foreignPages];
  const only = process.env.ONLY?.split(",");
  for (const check of all.filter(check => !only || only.includes(check.name))) {
    const begun = Date.now();
    await check(browser);
    for (const context of browser.contexts()) await context.close();
    assert.deepEqual(faults, []);
    console.log(`${check.name}: passed in ${((Date.now() - begun) / 1000).toFixed(1)} s`);
  }
  console.log(`browser passed: ${browser.version()}, screenshots in ${SCREENSHOTS}`);
} finally {
  await browser.close();
}
