// A lost connection is opened again: after 0.5 s, then twice as long each time up to 30 s, and up to half of
// that less by chance, so that not all pages come at once when the server is there again.
const FIRST_WAIT = 500, LONGEST_WAIT = 30000;
const at = id => document.getElementById(id);
// Relative to the page, which a proxy may show below a path of its own.
const url = new URL("ws", location.href);
url.protocol = url.protocol.replace("http", "ws");
let wait = FIRST_WAIT;

function connect() {
  const socket = new WebSocket(url);
  socket.onopen = () => {
    at("switch").disabled = false;
    at("switch").onclick = () => socket.send("switch");
  };
  socket.onmessage = message => {
    wait = FIRST_WAIT;
    at("lamp").className = message.data;
    at("state").textContent = message.data;
  };
  socket.onclose = () => {
    at("switch").disabled = true;
    at("state").textContent = "offline";
    setTimeout(connect, wait * (1 - Math.random() / 2));
    wait = Math.min(2 * wait, LONGEST_WAIT);
  };
}

connect();
