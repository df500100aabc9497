/** `npm start`: a server for all three protocols, and a command to try each. `PORT` changes the port. */
import { Server } from "tercet";

const server = new Server("::", Number(process.env.PORT ?? 9501));

server.on("request", (request, response) => {
  response.header("Content-Type", "text/plain");
  response.end(`Hello from ${request.server.server_protocol}!\n`);
});

await server.start();

const url = `https://localhost:${server.port}`;
console.log(`tercet: ready on ${url} (${server.protocols.join(", ")})

  HTTP/3    curl -k --http3-only ${url}   (a curl built with HTTP/3), or
            npx bun -e 'console.log(await (await fetch("${url}", { protocol: "http3", tls: { rejectUnauthorized: false } })).text())'
  HTTP/2    curl -k --http2 ${url}
  HTTP/1.1  curl -k --http1.1 ${url}

Ctrl-C stops it.`);
