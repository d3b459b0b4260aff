/* Runs before the scripts of the Aim UI: what would ask the outside world is answered here. docs/explanation/web-ui.md */
(function () {
  // Third-party analytics: the UI tracks nothing while this is false.
  window.analytics = false;

  // The pop-up that invites to a community server counts as seen.
  try { localStorage.setItem("communityPopupSeen", "true"); } catch (error) { /* storage may be forbidden */ }

  // Reports would load Pyodide from a CDN; they stay in their loading state instead of failing on every page.
  window.loadPyodide = function () { return new Promise(function () {}); };

  // The release feed. It needs one entry of the UI's own version, or the home page asks again for ever.
  var release = {
    tag_name: "v__VERSION__",
    name: "Aim UI __VERSION__, served by Matyan",
    html_url: "https://github.com/aimhubio/aim/releases/tag/v__VERSION__",
    body: ""
  };
  var ask = window.fetch.bind(window);
  window.fetch = function (input, init) {
    var url = String(input && input.url ? input.url : input);
    if (url.indexOf("https://api.github.com/repos/aimhubio/") !== 0) { return ask(input, init); }
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
