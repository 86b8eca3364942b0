"use strict";
// validatorUrl null: the page asks nobody but this server.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null });
