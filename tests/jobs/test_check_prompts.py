from tests.conftest import Cli

JOB = "jobs.check_prompts"


def test_a_report_names_doubtful_classes_for_people_and_programs(here: Cli) -> None:
    style = "a {{ style }} of {{ c_first }}"
    done = here(
        JOB, "--preset", "fashion", "--set", f"recipe.template={style}", "--set", "recipe.styles=[photo]", "--json"
    )
    report = done.check_ok().json
    assert report["classes"] == 10
    assert set(report["templates"]) >= {"c", "c, h_c", "c, d_c", "c, h_c inside b", style}
    boot = "n02872752"
    assert boot in report["polysemous"] and boot in report["templates"]["c"]["unresolved"]
    assert not report["templates"]["c, d_c"]["unresolved"]
    assert "Ankle boot" in done.stdout and repr(style) in done.stdout
    assert report["unread_words"] == ["photo"]
    assert "'embedded' has never read: 'photo'" in done.stdout


def test_a_class_without_a_hypernym_and_a_long_negative_prompt_are_said(here: Cli, tmp_root: str) -> None:
    tops = ["--name", "tops", "--class", "entity.n.01", "--class", "n02110958", "--root", tmp_root]
    here("jobs.build_classes", *tops).check_ok()
    words = [f"classes={tmp_root}/classes/tops.parquet", "recipe.guidance_scale=2", "recipe.template=c, h_c"]
    words.append(f"recipe.negative_prompt={'coat ' * 80}")
    done = here(JOB, "--preset", "fashion", *(part for word in words for part in ("--set", word)), "--json")
    report = done.check_ok().json
    assert report["without_hypernym"] == ["n00001740"] == list(report["templates"]["c, h_c"]["failed"])
    assert report["negative_prompt_tokens"] == 82
    assert "negative prompt: 82 tokens, cut at 77" in done.stdout.splitlines()


def test_a_wrong_template_is_one_line(here: Cli) -> None:
    here(JOB, "--preset", "fashion", "--set", "recipe.template={{ d }}").check_error(2, "unknown variable", "'d'")
