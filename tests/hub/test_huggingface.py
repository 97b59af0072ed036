"""Models of repositories of the Hugging Face Hub, on a stand-in for it on this machine.

``tests/hub/test_olah.py`` reads from a server that others wrote.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import EvalResult, ModelCardData, constants
from huggingface_hub.repocard_data import model_index_to_eval_results
from typer.testing import CliRunner

from dgl_deepgnn import ResGCN, ResGIN, create_model, register_model
from dgl_deepgnn.cli import app
from dgl_deepgnn.data import load_data
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.hub import (
    ZooError,
    download,
    evaluate,
    from_pretrained,
    list_pretrained,
    push,
    save_pretrained,
)
from dgl_deepgnn.hub.config import read_any_config
from dgl_deepgnn.nn.body import MODELS
from tests.hub.hugging_face import TOKEN, Hub

NAME, REPO = "tiny.karate", "me/tiny"  # as in conftest.py


def model() -> ResGCN:
    return ResGCN(in_feats=4, hidden_feats=8, out_feats=3, num_layers=5)


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    weights = other.state_dict()
    return all(torch.equal(weights[key], value) for key, value in one.state_dict().items())


# --- a model by itself ---


@pytest.mark.parametrize("name", ["resgcn", "resgraphsage", "resgin"])
def test_a_saved_model_is_the_model(name: str, tmp_path: Path) -> None:
    made = create_model(
        name,
        in_feats=4,
        hidden_feats=8,
        out_feats=3,
        num_layers=5,
        head="edge",
        edge_feats=2,
        norm_layer="batch",
        t="per-depth:2",
        residual="scaled",
    )
    made.save_pretrained(tmp_path / "one")
    again = type(made).from_pretrained(str(tmp_path / "one"))
    assert again.config == made.config
    assert same_weights(again, made)
    assert not again.training
    assert again.pretrained is not None and again.pretrained["name"] == "one"
    with pytest.raises(ZooError, match="is a ResG"):
        (ResGIN if name == "resgcn" else ResGCN).from_pretrained(str(tmp_path / "one"))


def test_a_saved_model_replaces_nothing(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path / "one")
    before = (tmp_path / "one" / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="exists"):
        model().save_pretrained(tmp_path / "one")
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == before


def test_what_cannot_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = model()
    with torch.no_grad():
        broken.convs[1].weight[0, 0] = float("nan")
    with pytest.raises(ZooError, match=r"convs\.1\.weight holds values that are not finite"):
        broken.save_pretrained(tmp_path / "one")

    class Own(ResGCN):
        pass

    own = Own(in_feats=4, hidden_feats=8, out_feats=3, num_layers=5)
    with pytest.raises(ZooError, match="Own has no registered name"):
        own.save_pretrained(tmp_path / "one")
    with pytest.raises(ZooError, match="name: the name 'has spaces' is not allowed"):
        save_pretrained(model(), tmp_path / "one", name="has spaces")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    register_model("own")(Own)
    own.save_pretrained(tmp_path / "one")
    assert type(from_pretrained(str(tmp_path / "one"))) is Own

    class Acting(ResGCN):
        def __init__(self, *widths: int, act=torch.relu, **body: object) -> None:  # type: ignore[no-untyped-def]
            super().__init__(*widths, **body)  # type: ignore[arg-type]
            self.act = act

    register_model("acting")(Acting)
    made = Acting(4, 8, 3, 5, act=torch.tanh)
    with pytest.raises(ZooError, match=r"Acting takes act, of which model\.config says nothing"):
        made.save_pretrained(tmp_path / "two")
    made.config["act"] = torch.tanh
    with pytest.raises(ZooError, match="arguments are no JSON"):
        made.save_pretrained(tmp_path / "two")
    made.config["act"] = "tanh"
    made.save_pretrained(tmp_path / "two")
    assert from_pretrained(str(tmp_path / "two")).act == "tanh"  # type: ignore[attr-defined]


def test_a_folder_without_weights(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path / "one")
    (tmp_path / "one" / "model.safetensors").unlink()
    with pytest.raises(ZooError, match=r"model\.safetensors cannot be read"):
        from_pretrained(str(tmp_path / "one"))
    (tmp_path / "one" / "model.safetensors").mkdir()
    with pytest.raises(ZooError, match=r"model\.safetensors"):
        from_pretrained(str(tmp_path / "one"))
    with pytest.raises(ZooError, match=r"revision: of repositories of .*is a folder here"):
        from_pretrained(str(tmp_path / "one"), revision="v1")


def test_a_model_from_a_zoo_keeps_how_graphs_are_prepared(published: Path, tmp_path: Path) -> None:
    parent = from_pretrained(NAME, published)
    parent.save_pretrained(tmp_path / "child")
    child = from_pretrained(str(tmp_path / "child"))
    assert child.pretrained is not None and child.pretrained["parent"] == NAME
    assert child.load_data().name == "karate"
    (graph,) = load_data("karate").graphs
    assert torch.equal(child.prepare(graph).ndata["feat"], parent.prepare(graph).ndata["feat"])
    assert not {"recipe", "seeds", "weights"} & child.pretrained.keys()  # nobody knows
    with pytest.raises(ZooError, match=r"saved without its run .*no record of what it scores"):
        evaluate(str(tmp_path / "child"))
    with pytest.warns(UserWarning, match="reset"):
        other = from_pretrained(NAME, published, out_feats=5)
    other.save_pretrained(tmp_path / "other")
    assert from_pretrained(str(tmp_path / "other")).origin is None


@pytest.mark.parametrize(
    "name, problem",
    [
        ("./no/such/folder", "There is no model at ./no/such/folder"),
        ("/no/such/folder", "There is no model at /no/such/folder"),
        ("a/b/c", "no repository of the Hugging Face Hub: user/repo"),
        ("a/..", "no repository"),
        ("a/b@v1@v2", "no repository"),
        ("a/b@../../x", "no repository"),
        ("a/b c", "no repository"),
        ("a/", "no repository"),
    ],
)
def test_wrong_names(name: str, problem: str) -> None:
    with pytest.raises(ZooError, match=problem):
        from_pretrained(name)


def test_options_of_the_hub_are_of_the_hub(published: Path) -> None:
    with pytest.raises(ZooError, match=r"revision: of repositories of the Hugging Face Hub alone"):
        from_pretrained(NAME, published, revision="v1")
    with pytest.raises(ZooError, match="names a revision"):
        from_pretrained("a/b@v1", revision="v2")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    advice = r"pip install 'dgl-deepgnn\[huggingface\]'"
    for action in (
        lambda: from_pretrained("a/b"),
        lambda: list_pretrained(zoo="hf://a/b"),
        lambda: model().push_to_hub("a/b"),
        lambda: push(run, "a/b"),
    ):
        with pytest.raises(ZooError, match=advice):
            action()


# --- pushed and loaded ---


def test_a_model_is_pushed_and_loaded(hub: Hub) -> None:
    made = model()
    address = made.push_to_hub(REPO, token=TOKEN, commit_message="First.")
    assert address.startswith(f"{hub.address}/{REPO}/commit/")
    assert same_weights(ResGCN.from_pretrained(REPO), made)
    # A new commit is seen; revisions stay what they are.
    first = hub.repos[REPO].refs["main"]
    other = model()
    other.push_to_hub(REPO, token=TOKEN)
    assert same_weights(from_pretrained(REPO), other)
    assert same_weights(from_pretrained(f"{REPO}@{first}"), made)
    assert same_weights(from_pretrained(REPO, revision=first), made)
    made.push_to_hub(REPO, token=TOKEN, branch="old")
    assert same_weights(from_pretrained(f"{REPO}@old"), made)
    assert same_weights(from_pretrained(REPO), other)
    address = made.push_to_hub(REPO, token=TOKEN, create_pr=True)
    assert address.endswith("/discussions/1")
    assert same_weights(from_pretrained(REPO), other)


def test_its_card_says_how_to_load_it(hub: Hub) -> None:
    made = model()
    made.push_to_hub(REPO, token=TOKEN)
    repo = hub.repos[REPO]
    header, card = split_card(repo.commits[repo.refs["main"]]["README.md"])
    assert header["library_name"] == "dgl-deepgnn" and header["pipeline_tag"] == "graph-ml"
    block = card.split("```python\n")[1].split("```")[0]
    namespace: dict[str, object] = {}
    exec(block, namespace)
    assert same_weights(namespace["model"], made)  # type: ignore[arg-type]


def test_who_may_not(hub: Hub) -> None:
    with pytest.raises(ZooError, match="You may not write to hf://me/tiny"):
        model().push_to_hub(REPO)
    made = model()
    made.push_to_hub(REPO, token=TOKEN, private=True)
    with pytest.raises(ZooError, match=r"no repository hf://me/tiny, or it is private: `hf auth"):
        from_pretrained(REPO)
    assert same_weights(from_pretrained(REPO, token=TOKEN), made)
    with pytest.raises(ZooError, match="branch"):
        made.push_to_hub(f"{REPO}@main", token=TOKEN)


def test_what_is_not_there(hub: Hub, pushed: dict[str, bytes]) -> None:
    with pytest.raises(ZooError, match="There is no repository hf://me/none"):
        from_pretrained("me/none")
    with pytest.raises(ZooError, match="hf://me/tiny@v9: there is no such revision"):
        from_pretrained(f"{REPO}@v9")
    hub.put("me/text", {"README.md": b"words"})
    with pytest.raises(ZooError, match=r"hf://me/text has no config\.json. Is it a model of dgl"):
        from_pretrained("me/text")
    with pytest.raises(ZooError, match=r"hf://me/text has no index\.json"):
        list_pretrained(zoo="hf://me/text")


def test_the_cache_serves_offline(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = model()
    made.push_to_hub(REPO, token=TOKEN)
    from_pretrained(REPO)
    hub.requests.clear()
    assert same_weights(from_pretrained(REPO, local_files_only=True), made)
    monkeypatch.setenv("DGL_DEEPGNN_OFFLINE", "1")
    assert same_weights(from_pretrained(REPO), made)
    with pytest.raises(ZooError, match=r"Offline, and hf://me/other/config\.json is not in the"):
        from_pretrained("me/other")
    assert not hub.requests
    monkeypatch.delenv("DGL_DEEPGNN_OFFLINE")
    own = tmp_path / "own"
    assert same_weights(from_pretrained(REPO, cache_dir=own), made)
    assert list(own.rglob("model.safetensors"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the library's pauses
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
    )
    assert same_weights(from_pretrained(REPO), made)  # the server is away, the cache is not
    with pytest.raises(ZooError, match="cannot be reached"):
        from_pretrained("me/other")


def test_a_model_pushed_over_a_published_one(hub: Hub, pushed: dict[str, bytes]) -> None:
    """What was recorded of the old weights is not said of the new ones."""
    tuned = from_pretrained(REPO)
    with torch.no_grad():
        tuned.convs[0].weight.mul_(2)
    tuned.push_to_hub(REPO, token=TOKEN)
    repo = hub.repos[REPO]
    assert set(repo.commits[repo.refs["main"]]) == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    assert same_weights(from_pretrained(REPO), tuned)
    with pytest.raises(ZooError, match="saved without its run"):
        evaluate(REPO)


@pytest.mark.parametrize("name", list_pretrained())
def test_every_released_model_keeps_its_data(name: str, tmp_path: Path) -> None:
    from_pretrained(name).save_pretrained(tmp_path / "it")
    assert from_pretrained(str(tmp_path / "it")).origin is not None


def test_a_listing_of_no_files(hub: Hub, pushed: dict[str, bytes]) -> None:
    content = json.loads(pushed["entry.json"])
    content["models"][NAME]["files"] = {}
    listing = json.dumps(content).encode()
    hub.put(REPO, {"entry.json": listing})
    hub.put("me/zoo", {"index.json": listing})
    for action in (
        lambda: download(REPO),
        lambda: from_pretrained(REPO),
        lambda: download(NAME, "hf://me/zoo"),
    ):
        with pytest.raises(ZooError, match="lists no file"):
            action()


def test_a_card_may_be_edited_on_the_hub(hub: Hub, pushed: dict[str, bytes]) -> None:
    hub.put(REPO, {"README.md": b"My own words."})
    assert evaluate(REPO)["agrees"]
    assert {file.name for file in download(REPO).iterdir()} >= pushed.keys() - {"README.md"}


# --- a published run ---


def split_card(content: bytes) -> tuple[dict[str, object], str]:
    _, header, card = content.decode().split("---\n", 2)
    return yaml.safe_load(header), card


def test_a_run_is_pushed_as_it_is_published(
    hub: Hub, pushed: dict[str, bytes], published: Path
) -> None:
    expected = {file.name: file.read_bytes() for file in (published / NAME).iterdir()}
    assert pushed.keys() - expected.keys() == {"entry.json"}
    for file in ("model.safetensors", "metrics.json", "speedup.json"):
        assert pushed[file] == expected[file]
    _, card = split_card(pushed["README.md"])
    assert card.strip() == (
        expected["README.md"]
        .decode()
        .strip()
        .replace(f'("{NAME}"', f'("{REPO}"')
        .replace(f"evaluate {NAME}", f"evaluate {REPO}")
        .replace(f"predict {NAME}", f"predict {REPO}")
        .replace("`index.json` of the zoo has", "`entry.json` has")
        .replace("SHA-256 of every file", "SHA-256 of every other file")
    )
    assert evaluate(REPO)["agrees"]
    assert same_weights(from_pretrained(REPO), from_pretrained(NAME, published))
    assert {file.name for file in download(REPO).iterdir()} == pushed.keys() - {"README.md"}
    result = CliRunner().invoke(app, ["evaluate", REPO])
    assert result.exit_code == 0 and "agrees" in result.stdout


def test_the_header_is_one_that_the_hub_reads(pushed: dict[str, bytes]) -> None:
    header, _ = split_card(pushed["README.md"])
    assert header["license"] == "apache-2.0"
    metrics = json.loads(pushed["metrics.json"])
    name, results = model_index_to_eval_results(header["model-index"])  # type: ignore[arg-type]
    assert name == NAME
    assert {result.metric_type: result.metric_value for result in results} == {
        metric: test["mean"] for metric, test in metrics["test"].items()
    }
    for result in results:
        assert isinstance(result, EvalResult)
        test = metrics["test"][result.metric_type]
        assert f"mean of 2 seeds, standard deviation {test['std']:.4f}" in (
            result.metric_name or ""
        )
        assert result.dataset_split == "test" and result.source_url
    data = ModelCardData(**header)  # type: ignore[arg-type]
    assert data.eval_results == results


def test_an_unknown_licence_is_named(hub: Hub, run: Path) -> None:
    push(run, REPO, token=TOKEN, licence="EUPL-1.2")
    repo = hub.repos[REPO]
    header, _ = split_card(repo.commits[repo.refs["main"]]["README.md"])
    assert (header["license"], header["license_name"]) == ("other", "eupl-1.2")


def test_the_command(hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    result = CliRunner().invoke(app, ["push", str(run), REPO, "--private", "--branch", "next"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"Pushed: {hub.address}/{REPO}/commit/")
    assert hub.repos[REPO].private
    assert type(from_pretrained(f"{REPO}@next")) is ResGCN


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "metrics.json"])
def test_a_changed_file_is_refused(hub: Hub, pushed: dict[str, bytes], file: str) -> None:
    changed = bytearray(pushed[file])
    changed[-3] ^= 1
    hub.put(REPO, {file: bytes(changed)})
    with pytest.raises(ZooError, match=f"{file} is damaged or was changed"):
        evaluate(REPO)


def test_sizes_are_looked_at_before_a_download(hub: Hub, pushed: dict[str, bytes]) -> None:
    sha = hub.repos[REPO].refs["main"]
    hub.sizes[f"/{REPO}/resolve/{sha}/model.safetensors"] = 10**12
    hub.requests.clear()
    with pytest.raises(ZooError, match="has 1,000,000,000,000 bytes; at most"):
        from_pretrained(REPO)
    assert not [r for r in hub.requests if r.startswith("GET") and "safetensors" in r]


def test_a_listing_of_several_models_is_none_of_one(hub: Hub, pushed: dict[str, bytes]) -> None:
    content = json.loads(pushed["entry.json"])
    content["models"]["other"] = content["models"][NAME]
    hub.put(REPO, {"entry.json": json.dumps(content).encode()})
    with pytest.raises(ZooError, match="lists 2 models, not one"):
        from_pretrained(REPO)


def test_a_config_names_no_data_of_its_choice(hub: Hub, pushed: dict[str, bytes]) -> None:
    """A hostile repository, its hashes right or not there at all."""
    config = json.loads(pushed["config.json"])
    config["data"].update(name="dgl:TUDataset", options={"url": "http://evil", "raw_dir": "/tmp"})
    files = {**pushed, "config.json": json.dumps(config).encode()}
    del files["entry.json"]
    hub.put("evil/tiny", files)
    loaded = from_pretrained("evil/tiny")  # weights are weights
    for action in (loaded.load_data, lambda: evaluate("evil/tiny")):
        with pytest.raises(ZooError, match=r"evaluate .* --data file:PATH"):
            action()


@pytest.mark.parametrize("looks", range(1, 9))
def test_all_files_are_of_one_commit(looks: int, hub: Hub) -> None:
    """A push between any two looks at the server does not mix files; there are no hashes here."""
    commits = []
    for dropout in (0.25, 0.5):
        made = ResGCN(4, 8, 3, 5, dropout=dropout)
        with torch.no_grad():
            made.convs[0].weight.fill_(dropout)
        made.push_to_hub(REPO, token=TOKEN)
        commits.append(hub.repos[REPO].refs["main"])

    class Moving(dict[str, str]):
        """Of the old commit for so many looks, then of the new one."""

        count = 0

        def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
            if key != "main":
                return super().get(key, default)
            self.count += 1
            return commits[self.count > looks]

    hub.repos[REPO].refs = Moving({"main": commits[0]})
    if looks == 2:  # between the facts of the first file and its content: the library says so
        with pytest.raises(ZooError, match="onsistency"):
            from_pretrained(REPO)
        return
    loaded = from_pretrained(REPO)
    assert loaded.convs[0].weight[0, 0] == loaded.config["dropout"]


# --- a zoo in a repository ---


def test_a_zoo_in_a_repository(hub: Hub, published: Path) -> None:
    files = {
        str(file.relative_to(published)): file.read_bytes()
        for file in published.rglob("*")
        if file.is_file()
    }
    hub.put("me/zoo", files)
    assert list_pretrained(zoo="hf://me/zoo") == [NAME]
    assert same_weights(from_pretrained(NAME, "hf://me/zoo"), from_pretrained(NAME, published))
    assert evaluate(NAME, "hf://me/zoo@main")["agrees"]
    with pytest.raises(ZooError, match=r"no model 'tiny\.carate' in the zoo hf://me/zoo"):
        from_pretrained("tiny.carate", "hf://me/zoo")
    with pytest.raises(ZooError, match=r"no config\.json.*zoo=hf://me/zoo"):
        from_pretrained("me/zoo")
    result = CliRunner().invoke(app, ["models", "--zoo", "hf://me/zoo"])
    assert result.exit_code == 0 and NAME in result.stdout
    hub.put("me/zoo", {f"{NAME}/model.safetensors": b"short"})
    with pytest.raises(ZooError, match=r"truncated|damaged"):
        from_pretrained(NAME, "hf://me/zoo")


def test_a_saved_config_is_checked(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path / "one")
    path = tmp_path / "one" / "config.json"
    content = json.loads(path.read_text())
    for change, problem in (
        ({"surprise": 1}, "surprise: unknown key"),
        ({"format": 99}, "newer than this installation"),
        ({"parent": "../x"}, "leads out of its folder"),
        (
            {"model": {"name": "resgcn", "arguments": {"num_layers": 10**8}}},
            "num_layers is 100000000",
        ),
    ):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(ZooError, match=problem):
            from_pretrained(str(tmp_path / "one"))
    path.write_text("[" * 100_000)
    with pytest.raises(ZooError, match=r"nested too deeply|not JSON"):
        read_any_config(path)
