// Starts Swagger UI on the document that this script's tag names. Nothing of it is sent to a validator elsewhere.
SwaggerUIBundle({
  dom_id: "#page",
  url: document.currentScript.dataset.document,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  deepLinking: true,
  docExpansion: "none",
  filter: true,
  validatorUrl: null,
});
