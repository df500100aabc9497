/** `npx bun examples/express.ts`: an Express 5 app over HTTP/1.1, HTTP/2 and HTTP/3. `PORT` changes the port. */
import cookieParser from "cookie-parser";
import express from "express";
import { Server } from "tercet";
import { nodeHandler } from "tercet/node";

const app = express();

app.use(cookieParser());
app.use("/source", express.static(import.meta.dirname));
app.get("/", (req, res) => {
  const visits = Number(req.cookies.visits ?? 0) + 1;
  res.cookie("visits", visits, { httpOnly: true, sameSite: "lax", secure: true });
  res.send(`Visit ${visits} by ${req.ip}, over HTTP/${req.httpVersion}.\n`);
});
app.post("/sum", express.json(), (req, res) => {
  const numbers = Array.isArray(req.body) ? req.body : [];
  res.json({ sum: numbers.reduce((sum, number) => sum + Number(number), 0) });
});

// For `npx tercet serve`, these lines would be: export default nodeHandler(app);
const server = new Server("::", Number(process.env.PORT ?? 9501));
server.on("request", nodeHandler(app));
await server.start();
console.log(`tercet: ready on https://localhost:${server.port} (${server.protocols.join(", ")})`);
