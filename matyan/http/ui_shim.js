/* Runs before the scripts of the UI: what would ask the outside world is answered here. docs/explanation/web-ui.md */
(function () {
  // Third-party analytics: the UI tracks nothing while this is false.
  window.analytics = false;

  // The pop-up that invites to a community server counts as seen.
  try { localStorage.setItem("communityPopupSeen", "true"); } catch (error) { /* storage may be forbidden */ }

  // Reports run their code blocks in Pyodide, which is loaded from a CDN. In its place: an interpreter that takes the
  // UI's own helpers at the start, so that reports can be listed, written and read, and refuses every code block.
  var refusal = "This block is Python, which reports run in the browser with Pyodide.\n" +
    "Pyodide comes from the internet, from where this server lets nothing be loaded;\n" +
    "text, lists and links of the report are shown without it.";
  function nothing() { return Promise.resolve(); }
  function none() { return { toJs: function () { return []; }, destroy: nothing }; }
  function Interpreter() {  // no plain object: the UI freezes those
    var runs = 0;
    this._api = {};
    this.pyodide_py = { code: { find_imports: none } };
    this.toPy = function (value) { return value; };
    this.loadPackage = this.loadPackagesFromImports = this.runPython = nothing;
    this.runPythonAsync = function () { return runs++ ? Promise.reject(new Error(refusal)) : nothing(); };
  }
  window.loadPyodide = function () { return Promise.resolve(new Interpreter()); };

  // The release feed. It needs one entry of the UI's own version, or the home page asks again for ever.
  var release = {
    tag_name: "v__VERSION__",
    name: "__NAME__ __VERSION__, served by Matyan",
    html_url: "https://github.com/__REPOSITORY__/releases/tag/v__VERSION__",
    body: ""
  };
  var ask = window.fetch.bind(window);
  window.fetch = function (input, init) {
    var url = String(input && input.url ? input.url : input);
    if (url.indexOf("https://api.github.com/repos/__REPOSITORY__/") !== 0) { return ask(input, init); }
    var answer = url.indexOf("/tags/") > 0 ? release : [release];
    var headers = { "Content-Type": "application/json" };
    return Promise.resolve(new Response(JSON.stringify(answer), { status: 200, headers: headers }));
  };

  // Tab titles end in "| Aim".
  var title = Object.getOwnPropertyDescriptor(Document.prototype, "title");
  Object.defineProperty(document, "title", {
    configurable: true,
    get: function () { return title.get.call(document); },
    set: function (text) { title.set.call(document, String(text).replace(/(^|\| )Aim$/, "$1Matyan")); }
  });
})();
