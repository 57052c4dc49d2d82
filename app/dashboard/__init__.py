"""The web panel: server-rendered pages over the same services and repositories as the API, with no truth of its own.

How to add a page:

1. `pages/<name>.py` makes `router = PanelRouter()` and adds `def` endpoints to it. Each asks for who looks (`Reader`,
   or `Writer` and `Administrator` from `app.dashboard.visitors`) and, as the API's do, for `Read` or `Write`; it asks
   the domain's service or repository once and answers `render(request, "<name>.html", ...)`. A POST answers `to(path)`
   (303), so that a reload posts nothing again. What the API raises (`NotFound`, `Invalid`, ...) may pass: the route
   makes it a page with every fault, its pointer and its remedy. To show faults beside a form, catch `ServiceError` and
   hand `faults=error.faults` to the template (`ui.faults`).
2. `templates/<name>.html` extends `layout.html`, has the parts of `macros.html` as `ui`, and fills the blocks `title`,
   `main` and, for a script of its own, `scripts`. No inline script, no inline style and no `style` attribute: the
   policy forbids them. Data for a script stand in `<script type="application/json">{{ value | tojson }}</script>`.
3. List the router in `pages/__init__.py`, and its section in `navigation.py` unless it stands there already. A section
   appears in the navigation as soon as a page answers at its path.
4. Every POST is refused unless it comes from a page of this origin (`guard`); forms need no token. The path of an
   upload goes to `STREAMING` of `app.main`.
"""
