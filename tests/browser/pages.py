"""What the tests of single pages share: themes, a name that must stay text, and a page that nothing leaves."""

EVIL = "<script>window.hacked = true</script><img src=x onerror='window.hacked = true'>"
THEMES = {
    "light": "--jp-layout-color0: #fff; --jp-layout-color2: #eee; --jp-ui-font-color0: rgba(0,0,0,1);"
    "--jp-ui-font-color2: rgba(0,0,0,.54); --jp-border-color2: #e0e0e0",
    "dark": "--jp-layout-color0: #111; --jp-layout-color2: #424242; --jp-ui-font-color0: rgba(255,255,255,1);"
    "--jp-ui-font-color2: rgba(255,255,255,.7); --jp-border-color2: #616161",
}


def opened(chromium, html, scripts, *, size):
    """A page of this source that has said ``window.ready``; it keeps its errors.

    Args:
        scripts: name -> source, as the page imports them.
        size: width and height in pixels.
    """
    page = chromium.new_page(viewport={"width": size[0], "height": size[1]})
    types = {"/": ("text/html", html)} | {f"/{name}": ("text/javascript", source) for name, source in scripts.items()}

    def answer(route):
        kind, body = types.get("/" + route.request.url.split("/", 3)[3], ("text/plain", ""))
        route.fulfill(body=body, content_type=kind + "; charset=utf-8")

    page.route("**/*", answer)  # nothing leaves the browser
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto("http://page.invalid/")
    page.wait_for_function("window.ready")
    return page
