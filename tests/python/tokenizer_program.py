"""Talks to tokenizer_driver, which runs the C++ tokenizer."""
import json
import subprocess


class Refused(Exception):
    """An error of the library."""


class Program:
    def __init__(self, path):
        self._process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                         encoding="utf-8")

    def __call__(self, op, **request):
        self._process.stdin.write(json.dumps({"op": op, **request}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"tokenizer_driver ended with {self._process.wait()} on {op}"
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer

    def encode(self, text, special=False):
        how = {"hex": text.hex()} if isinstance(text, bytes) else {"text": text}
        return self("encode", special=special, **how)["ids"]

    def decode(self, ids, skip_special=False):
        return self("decode", ids=ids, skip_special=skip_special)["text"]

    def stream(self, ids, skip_special=False):
        return self("stream", ids=ids, skip_special=skip_special)["pieces"]

    def close(self):
        self._process.stdin.close()
        assert self._process.wait() == 0
