// The page of the REST service: Swagger UI on this server's own document.
SwaggerUIBundle({
  url: document.getElementById("viewer").dataset.url,
  dom_id: "#viewer",
  deepLinking: false,
  validatorUrl: null,
});
