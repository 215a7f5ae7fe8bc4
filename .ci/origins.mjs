// Whose pages Chromium lets connect: behind nginx at a port of its own, from a file, and from others.
// Part of `.ci/browser`.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { createInterface } from "node:readline";

const { HUB, NGINX } = process.env;

/** What was started and is to be stopped. */
const running = new Set();
process.on("exit", () => running.forEach(child => child.kill("SIGKILL")));

/** A program, until a line of its log answers; then its further lines are kept. */
export function start(name, args, pattern) {
  const child = spawn(name, args, { stdio: ["ignore", "ignore", "pipe"] });
  running.add(child);
  const log = [];
  const found = new Promise((done, failed) => {
    createInterface({ input: child.stderr }).on("line", line => {
      log.push(line);
      const match = line.match(pattern);
      if (match) done(match[1]);
    });
    child.on("close", code => failed(new Error(`${name} ended with ${code}: ${log.join("\n")}`)));
  });
  const stop = () => {
    const ended = new Promise(done => child.on("close", done));
    child.kill("SIGTERM");
    running.delete(child);
    return ended;
  };
  return { found, log, stop };
}

/** A hub at a free port that hands out a shell. */
export async function hub(pages, ...more) {
  const args = ["--listen", "127.0.0.1:0", "--echo", "--exec", "/bin/cat", "--serve", pages, ...more];
  const program = start(HUB, args, /bound to .*:(\d+)$/);
  return { port: await program.found, log: program.log, stop: program.stop };
}

/** A port below those that the system gives to who asks for any: nobody is given it before it is listened on. */
export function freePort() {
  const wanted = 10_000 + Math.floor(Math.random() * 20_000);
  return new Promise(done => {
    const probe = createServer().listen(wanted, "127.0.0.1", () => probe.close(() => done(wanted)));
    probe.on("error", () => done(freePort()));
  });
}

/** nginx with TLS and the guide's location. */
async function nginx(folder, port, upstream) {
  const location = readFileSync("src/guide/proxies.md", "utf8").match(/```nginx\n(.*?)```/s)[1];
  assert.ok(location.includes("127.0.0.1:8080"));
  const key = ["-keyout", `${folder}/key.pem`, "-out", `${folder}/cert.pem`];
  execFileSync("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=box.example", ...key], { stdio: "ignore" });
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(kind => `${kind}_temp_path ${folder}/${kind};`);
  writeFileSync(`${folder}/nginx.conf`, `
    daemon off; master_process off; pid ${folder}/pid; error_log stderr notice;
    events {}
    http { access_log off; ${temporary.join(" ")} server {
      listen 127.0.0.1:${port} ssl; ssl_certificate ${folder}/cert.pem; ssl_certificate_key ${folder}/key.pem;
      ${location.replace("127.0.0.1:8080", `127.0.0.1:${upstream}`)}
    } }`);
  const proxy = start(NGINX, ["-p", folder, "-c", `${folder}/nginx.conf`, "-e", "stderr"], /(using the .* event method)/);
  await proxy.found;
  return proxy;
}

/** The hub's own page over its own TLS, and an echo over wss. */
export async function overTls(browser, open) {
  const folder = mkdtempSync(`${tmpdir()}/wirewheel-tls-`);
  const [key, certificate] = [`${folder}/key.pem`, `${folder}/cert.pem`];
  try {
    execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
      "-subj", "/CN=localhost", "-keyout", key, "-out", certificate], { stdio: "ignore" });
    writeFileSync(`${folder}/index.html`, "<!doctype html><title>over TLS</title>");
    const program = start(HUB, ["--listen", "tls:127.0.0.1:0", "--echo", "--serve", folder,
      "--tls-cert", certificate, "--tls-key", key], /bound to .*:(\d+)$/);
    const port = await program.found;
    const page = await open(browser, `https://localhost:${port}/`, { ignoreHTTPSErrors: true });
    assert.equal(await page.title(), "over TLS");
    assert.equal(await said(page, `wss://localhost:${port}/echo`), "hello");
    const goodbye = page.evaluate(url => new Promise(done => {
      const socket = new WebSocket(url);
      socket.onopen = () => console.log("open");
      socket.onclose = event => done(event.code);
    }), `wss://localhost:${port}/echo`);
    await page.waitForEvent("console");
    await program.stop();
    assert.equal(await goodbye, 1001);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What a session that this page opens sends back. */
function said(page, url) {
  return page.evaluate(url => new Promise(done => {
    const socket = new WebSocket(url);
    socket.onopen = () => socket.send("hello");
    socket.onmessage = event => done(event.data);
    socket.onclose = event => done(event.code);
  }), url);
}

/** The server itself refuses, with 403: Chromium says so on its console. */
async function expectRefused(page, url) {
  const refusal = page.waitForEvent("console", line => line.text().includes("Unexpected response code: 403"));
  const [answer] = await Promise.all([said(page, url), refusal]);
  assert.equal(answer, 1006, `${page.url()} to ${url}`);
}

export async function origins(launch, open) {
  const folder = mkdtempSync(`${tmpdir()}/wirewheel-origins-`);
  writeFileSync(`${folder}/index.html`, "<!doctype html><title>page</title><link rel=icon href=data:,>");
  const port = await freePort();
  // The names stand for this machine, as DNS may say of any; nginx is at 8443, as far as a page can tell.
  const rules = `MAP box.example:8443 127.0.0.1:${port}, MAP evil.example 127.0.0.1`;
  const browser = await launch(`--host-resolver-rules=${rules}`, "--ignore-certificate-errors");
  const plain = await hub(folder);
  const named = await hub(folder, "--host", "box.example", "--trusted-proxy", "127.0.0.1", "--allow-origin", "null");
  const proxy = await nginx(folder, port, named.port);
  try {
    for (const host of [`127.0.0.1:${plain.port}`, `localhost:${plain.port}`]) {
      const own = await open(browser, `http://${host}/`);
      assert.equal(await said(own, `ws://${host}/exec`), "hello");
    }
    const behind = await open(browser, "https://box.example:8443/ws/");
    assert.equal(await said(behind, "wss://box.example:8443/ws/exec"), "hello");

    // A page of somebody else, and one that was served under a name of somebody else (DNS rebinding).
    const foreign = await open(browser, `http://evil.example:${named.port}/`);
    await expectRefused(foreign, `ws://127.0.0.1:${plain.port}/exec`);
    await expectRefused(foreign, `ws://127.0.0.1:${named.port}/echo`);
    const rebound = await open(browser, `http://evil.example:${plain.port}/`);
    await expectRefused(rebound, `ws://evil.example:${plain.port}/exec`);
    await expectRefused(rebound, `ws://evil.example:${plain.port}/echo`);
    await expectRefused(foreign, "wss://box.example:8443/ws/exec");
    const line = plain.log.find(line => line.includes("403 to 127.0.0.1"));
    assert.ok(line?.includes(`"http://evil.example:${named.port}"`) && line.includes("allowed_origins"), plain.log.join("\n"));

    // A page from a file and one in a sandbox say `null`: they are nobody's until that is listed.
    const file = await open(browser, `file://${folder}/index.html`);
    await expectRefused(file, `ws://127.0.0.1:${plain.port}/exec`);
    assert.equal(await said(file, `ws://127.0.0.1:${named.port}/exec`), "hello");
    const sandboxed = await open(browser, `http://127.0.0.1:${plain.port}/`);
    await sandboxed.setContent("<iframe sandbox=allow-scripts srcdoc='<title>boxed</title>'></iframe>");
    await sandboxed.waitForFunction(() => frames.length === 1);
    const refusal = sandboxed.waitForEvent("console", line => line.text().includes("Unexpected response code: 403"));
    assert.equal(await said(sandboxed.frames()[1], `ws://127.0.0.1:${plain.port}/exec`), 1006);
    await refusal;
  } finally {
    await browser.close();
    await Promise.all([proxy, plain, named].map(program => program.stop()));
    rmSync(folder, { recursive: true });
  }
}
