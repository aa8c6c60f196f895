"""Renders a chat template as transformers does: a request as JSON on stdin, the answer as JSON on stdout.

Request: {"template", "tokens": {"bos_token": ...}, "messages", "tools" (as JSON), "add_generation_prompt",
"limits": {"seconds", "memory", "bytes"}}; answer: {"text"} or {"error", "line" or null}.
Templates come from strangers: jinja2's sandbox keeps them from the system, limits keep them from time and memory.
"""
import datetime
import json
import sys

OLDEST = (3, 1, 6)  # sandboxes before it can be left


def environment():
    import jinja2
    import jinja2.ext
    import jinja2.sandbox

    if tuple(int(part) for part in jinja2.__version__.split(".")[:3]) < OLDEST:
        raise ImportError(f"jinja2 {jinja2.__version__} is there, want 3.1.6 or later")

    class Generation(jinja2.ext.Extension):
        """{% generation %} marks what an assistant wrote, for training; the text is as without it."""
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_unchanged"), [], [], body).set_lineno(line)

        def _unchanged(self, caller):
            return caller()

    class Namespace(jinja2.utils.Namespace):
        """Without attributes that begin with an underscore: they lead out of the sandbox."""

        def __init__(*args, **kwargs):
            for name in dict(*args[1:], **kwargs):
                Namespace._check(name)
            jinja2.utils.Namespace.__init__(*args, **kwargs)

        def __setitem__(self, name, value):
            Namespace._check(name)
            jinja2.utils.Namespace.__setitem__(self, name, value)

        @staticmethod
        def _check(name):
            if isinstance(name, str) and name.startswith("_"):
                raise jinja2.exceptions.SecurityError(f"a namespace takes no name with an underscore in front: {name}")

    class Dict:
        """dict() and dict.fromkeys(), and nothing else of the type."""

        def __call__(self, *args, **kwargs):
            return dict(*args, **kwargs)

        def fromkeys(self, *args, **kwargs):
            return dict.fromkeys(*args, **kwargs)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    made.filters["tojson"] = to_json
    made.globals.update(raise_exception=raise_exception, dict=Dict(), namespace=Namespace,
                        strftime_now=lambda form: datetime.datetime.now().strftime(form))
    return made


def line_of(error):
    """The template's line in which an error arose."""
    if getattr(error, "lineno", None):
        return error.lineno
    line, frame = None, error.__traceback__
    while frame:
        if frame.tb_frame.f_code.co_filename == "<template>":
            line = frame.tb_lineno
        frame = frame.tb_next
    return line


def render(request):
    try:
        made = environment()
    except ImportError as error:
        return {"error": str(error), "missing": True}
    most = request["limits"]["bytes"]
    parts, size = [], 0
    try:
        tools = json.loads(request["tools"])
        template = made.from_string(request["template"])
        for part in template.generate(
                messages=request["messages"], tools=tools, documents=None,
                add_generation_prompt=request["add_generation_prompt"], **request["tokens"]):
            parts.append(part)
            size += len(part) if part.isascii() else len(part.encode(errors="surrogatepass"))
            if size > most:
                return {"error": f"it writes more than {most} bytes", "line": None}
        return {"text": "".join(parts)}
    except RecursionError as error:
        return {"error": "it is nested too deeply", "line": line_of(error)}
    except MemoryError as error:
        return {"error": f"it needs more than {request['limits']['memory'] >> 20} MiB of memory", "line": line_of(error)}
    except Exception as error:  # whatever a template does wrong is the template's
        return {"error": str(error) or type(error).__name__, "line": line_of(error)}


def main():
    import resource

    request = json.load(sys.stdin)
    limits = request["limits"]
    # Whoever waits for the answer may be gone by then.
    resource.setrlimit(resource.RLIMIT_CPU, (limits["seconds"], limits["seconds"]))
    resource.setrlimit(resource.RLIMIT_AS, (limits["memory"], limits["memory"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    json.dump(render(request), sys.stdout)


if __name__ == "__main__":
    main()
