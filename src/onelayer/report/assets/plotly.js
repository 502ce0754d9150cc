// Plotly's own bundle, which the page carries gzipped in base64: unpack it and run it, once.

let loading;

export function load() {
  loading ??= unpack(document.getElementById("plotly").textContent).then((source) => {
    const script = document.createElement("script");
    script.textContent = source;
    document.head.append(script);
    return window.Plotly;
  });
  return loading;
}

async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}
