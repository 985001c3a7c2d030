const server = Bun.serve({
  port: 3000,
  fetch: (request) => new Response("peer=" + server.requestIP(request)?.address),
});
