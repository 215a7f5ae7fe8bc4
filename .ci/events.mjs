// What an EventSource of Chromium makes of lost connections and of a restart, directly and through nginx with
// its defaults. Part of `.ci/browser`.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { freePort, start } from "./origins.mjs";

const { NGINX } = process.env;

/** nginx with nothing said but where to. */
async function nginx(folder, port, upstream) {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(kind => `${kind}_temp_path ${folder}/${kind};`);
  writeFileSync(`${folder}/nginx.conf`, `
    daemon off; master_process off; pid ${folder}/pid; error_log stderr notice;
    events {}
    http { access_log off; ${temporary.join(" ")} server {
      listen 127.0.0.1:${port}; location / { proxy_pass http://${upstream}; }
    } }`);
  const proxy = start(NGINX, ["-p", folder, "-c", `${folder}/nginx.conf`, "-e", "stderr"], /(using the .* event method)/);
  await proxy.found;
  return proxy;
}

const figure = async (page, id) => Number(await page.locator(`#${id}`).textContent());

/** Waits until the page has so many more readings. */
async function expectMore(page, count) {
  const wanted = await figure(page, "count") + count;
  await page.waitForFunction(wanted => Number(document.getElementById("count").textContent) >= wanted, wanted);
}

/** All readings came, one after the other, from so many servers. */
async function expectNoGap(pages, restarts) {
  for (const page of pages) {
    assert.equal(await figure(page, "gaps"), 0, "gaps");
    assert.equal(await figure(page, "restarts"), restarts, "restarts");
  }
}

export async function overRestarts(browser, { Program, place, open, expectText, expectUsable, shot, PHONE }) {
  const folder = mkdtempSync(`${tmpdir()}/wirewheel-events-`);
  try {
    const program = await Program.start("events", await place());
    const port = await freePort();
    let proxy = await nginx(folder, port, program.address);
    const direct = await open(browser, program.url, { viewport: PHONE, hasTouch: true, isMobile: true });
    const proxied = await open(browser, `http://127.0.0.1:${port}/`, { colorScheme: "dark" });
    const pages = [direct, proxied];
    for (const page of pages) {
      await expectText(page, "#state.open", "listening");
      await expectMore(page, 2);
    }
    await expectUsable(direct);

    // The connection is lost, and the server goes on: what it said meanwhile is not lost.
    await proxy.stop();
    await expectText(proxied, "#state.wait", "offline");
    await expectMore(direct, 3);
    proxy = await nginx(folder, port, program.address);
    await expectText(proxied, "#state.open", "listening");
    await expectMore(proxied, 2);
    await expectNoGap(pages, 0);

    // The server is started anew, and has said something before the pages are there again.
    await program.stop();
    for (const page of pages) await expectText(page, "#state.wait", "offline");
    const again = await Program.start("events", program.address);
    for (const page of pages) {
      await expectText(page, "#state.open", "listening");
      await expectText(page, "#log .note", "the server was started anew");
      await expectMore(page, 2);
    }
    await expectNoGap(pages, 1);
    await shot(direct, "events-phone-light");
    await shot(proxied, "events-desk-dark");
    await direct.tap("#toggle");
    await expectText(direct, "#state", "stopped");
    await direct.tap("#toggle");
    await expectText(direct, "#state.open", "listening");
    await again.stop();
    await proxy.stop();
  } finally {
    rmSync(folder, { recursive: true });
  }
}
