"""Everything that runs the product: the embedded servers, and the manifests for real ones. Nothing imports it."""
