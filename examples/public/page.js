const names = { h3: "HTTP/3", h2: "HTTP/2", "http/1.1": "HTTP/1.1" };
const [page] = performance.getEntriesByType("navigation");
document.querySelector("#page").textContent = names[page?.nextHopProtocol] ?? "a cache";
const answer = await fetch("/now");
document.querySelector("#handler").textContent = (await answer.json()).protocol;
