"""What the tests of both kinds of page share."""

from __future__ import annotations

# Text that would run, close a tag or be a template if it were anything but text.
HOSTILE = [
    "<script>document.title='ran'</script>",
    '"><img src=x onerror="document.title=\'ran\'">',
    "{{ 7 * 7 }}{% raw %}",
    "'onmouseover=alert(1) x='",
    "</style></title><svg onload=alert(1)>",
    "$\\frac{1}{2}$ & <b>bold</b>",
]

# What a test wants to know of an open page.
LOOK = """
(async () => {
  const images = [...document.images];
  await Promise.all(images.map(image => image.decode()));
  return {
    title: document.title,
    widths: images.map(image => image.naturalWidth),
    alts: images.map(image => image.alt),
    captions: [...document.querySelectorAll('.gallery figcaption')].map(e => e.innerText),
    gap: document.getElementById('gap')?.innerText,
    frames: [...document.querySelectorAll('.gallery .frame')].map(e => [e.innerText, e.offsetWidth, e.offsetHeight]),
    headings: [...document.querySelectorAll('h3')].map(e => e.innerText),
    text: document.body.innerText,
    scripts: document.scripts.length,
    marks: [...document.querySelectorAll('b, svg')].map(e => e.outerHTML).filter(t => /bold|onload/.test(t)),
    overflow: document.documentElement.scrollWidth - window.innerWidth,
    paper: getComputedStyle(document.body).backgroundColor,
  };
})()
"""
