"""Azure Functions' own Python runtime, driven the way the platform's host drives it.

The product's function_app.py has to be proved against the code that runs in Azure, and
that code never listens on its own: a host process indexes the app, matches the routes and
starts every invocation. This package is that host, cut down to what a test needs, in a
process of its own, with the runtime and the app in another, as on Azure:
`python -m tests.functions_host --app-dir DIR`.

Invariant: nothing of the runtime, the extension or the app is patched.
"""
