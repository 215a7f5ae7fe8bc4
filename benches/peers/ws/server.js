// npm `ws` as a benchmark server: node server.js PORT [echo|broadcast|broadcast-deflate]
"use strict";
const { WebSocketServer } = require("ws");

const [port, mode = "echo"] = process.argv.slice(2);
const deflate = mode === "broadcast-deflate" && {
  threshold: 0,
  serverNoContextTakeover: true,
  clientNoContextTakeover: true,
};
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(port),
  backlog: 4096,
  perMessageDeflate: deflate,
});
server.on("connection", (session) => {
  session.on("error", () => {}); // a client that hangs up ends its session and nothing else
  session.on("message", (data, isBinary) => {
    const receivers = mode === "echo" ? [session] : server.clients;
    for (const receiver of receivers) receiver.send(data, { binary: isBinary });
  });
});
