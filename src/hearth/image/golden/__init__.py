"""Golden images: found in object storage, fetched once, judged before they are used, kept by their content's hash."""
