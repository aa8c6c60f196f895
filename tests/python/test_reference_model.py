"""tools/reference_model.py: a rehearsal, which goes the whole way with a tiny model, and goes on where it was stopped."""
import importlib.util
import json
import sys

from safetensors.torch import load_file

from conftest import BUILD, ROOT


def test_rehearsal(seer, tmp_path, monkeypatch):
    # In this process, which has torch already.
    monkeypatch.setenv("SEER_BUILD", str(BUILD))
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("reference_model", ROOT / "tools" / "reference_model.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    text = (BUILD / "default_text.txt").read_text()
    (tmp_path / "a.txt").write_text(text[:60_000])
    (tmp_path / "b.txt").write_text(text[60_000:110_000])
    monkeypatch.setattr(sys, "argv", ["reference_model.py", "--data", f"{tmp_path}/a.txt,{tmp_path}/b.txt", "--valid", f"{tmp_path}/b.txt",
                                      "--out", str(tmp_path / "out"), "--rehearse"])
    program.main()
    reference = tmp_path / "out" / "reference"
    record = json.loads((tmp_path / "out" / "embedded_model.json").read_text())
    assert [record[stage]["steps"] for stage in ("base", "model", "gates", "lookup")] == [2, 2, 2, 0]
    assert record["bytes_of_weights"] == sum(path.stat().st_size for path in reference.rglob("*.safetensors"))
    assert "/" not in record["base"]["command"] and record["base"]["tokens"] == 2048
    assert json.loads((reference / "config.json").read_text())["rope_scaling"]["factor"] == 4
    exact = load_file(tmp_path / "out" / "lookup" / "attn_gate_weights.safetensors")
    for name, weight in load_file(reference / "gates" / "attn_gate_weights.safetensors").items():
        assert weight.dtype.is_floating_point and weight.element_size() == 2 and weight.equal(exact[name].to(weight.dtype)), name
    assert any("lookup" in name for name in exact) and (reference / "gates" / "heads.json").is_file()
    assert json.loads((reference / "gates" / "config.json").read_text())["base_model"] == "assets/reference"
    shown = seer("eval", "ppl", "--model", reference, "--data", tmp_path / "b.txt", "--lengths", 1024, "--methods", "dense,seer,gate", "--sparsity", 0.5,
                 "--documents", 1, "--min-ratio", 1, "--device", "cpu", "--threads", 1)
    assert "gate" in shown.stdout
    before = (reference / "model.safetensors").read_bytes()
    program.main()
    assert (reference / "model.safetensors").read_bytes() == before
