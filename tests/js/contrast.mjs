// How well text stands out from what is behind it, as WCAG 2 has it. Runs in a page.

/** Text that stands out less than it must (4.5, or 3 if it is large): [ratio, text] of each. */
export function contrasts() {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true })
  /** Any colour, laid over another: red, green, blue from 0 to 255. */
  const over = (colour, [red, green, blue]) => {
    canvas.fillStyle = `rgb(${red} ${green} ${blue})`
    canvas.fillRect(0, 0, 1, 1)
    canvas.fillStyle = colour
    canvas.fillRect(0, 0, 1, 1)
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)
  }
  const luminance = colour => {
    const [red, green, blue] = colour.map(each => {
      const part = each / 255
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
    })
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
  }
  const behind = element => {
    const under = element.parentElement ? behind(element.parentElement) : [255, 255, 255]
    return over(getComputedStyle(element).backgroundColor, under)
  }
  const found = []
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement
    const text = walker.currentNode.data.trim()
    if (!text || !element.checkVisibility() || element.closest(":disabled, .unseen, .skip")) continue
    const style = getComputedStyle(element)
    const under = behind(element)
    const [light, dark] = [under, over(style.color, under)].map(luminance).sort((a, b) => b - a)
    const ratio = (light + 0.05) / (dark + 0.05)
    const size = Number.parseFloat(style.fontSize)
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700)
    if (ratio < (isLarge ? 3 : 4.5)) found.push([Number(ratio.toFixed(2)), text.slice(0, 60)])
  }
  return found
}
